// The module `words` as a gRPC server in Node, written from module.proto and the protocol's text.
//
// words.mjs PROTO PACKAGES [CERT KEY CA]: PACKAGES is the folder where npm installed @grpc/grpc-js, @grpc/proto-loader and
// grpc-health-check. With the files of a certificate it speaks TLS, and asks clients for theirs. It prints its port.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const [proto, packages, ...files] = process.argv.slice(2);
const require = createRequire(`${packages}/`);
const grpc = require("@grpc/grpc-js");
const { HealthImplementation } = require("grpc-health-check");
const { amplifier } = grpc.loadPackageDefinition(require("@grpc/proto-loader").loadSync(proto));

const text = { type: "object", properties: { text: { type: "string" } }, required: ["text"] };
const description = {
  name: "words",
  kind: "tool",
  version: "1.0.0",
  capabilities: [],
  inputs: { count: text, tell: text, wait: { type: "object" } },
  outputs: { count: { type: "object" }, tell: { type: "object" }, wait: {} },
};

const encoded = (message) => ({ message: Buffer.from(JSON.stringify(message)) });
const failed = (code, message, details = {}) => ({ ok: false, error: { code, message, details } });

/** Carry out one invocation; what it streams goes to `chunk`, and `gone` is called with what a cancel calls. */
async function answer(call, chunk) {
  const { op, args } = JSON.parse(call.request.params.toString());
  if (op === "wait") {
    await new Promise((resolve) => call.on("cancelled", resolve));
    console.error("cancelled");
    return failed("cancelled", "the caller gave up");
  }
  if (op !== "count" && op !== "tell") return failed("unsupported_op", "words knows count, tell and wait");
  if (typeof args.text !== "string") {
    return failed("bad_request", "args.text: expected a string", { path: "args.text" });
  }
  const words = args.text.split(/\s+/).filter(Boolean);
  if (op === "tell") for (const word of words) await chunk({ chunk: { word } });
  return { ok: true, result: { words: words.length } };
}

const large = 64 * 2 ** 20;
const server = new grpc.Server({ "grpc.max_receive_message_length": large, "grpc.max_send_message_length": large });
server.addService(amplifier.v1.Module.service, {
  Describe: (_call, reply) => reply(null, encoded({ ok: true, result: description })),
  Invoke: (call, reply) => answer(call, () => {}).then((message) => reply(null, encoded(message)), reply),
  InvokeStream: async (call) => {
    const send = (message) => call.write(encoded(message)) || new Promise((resolve) => call.once("drain", resolve));
    await send(await answer(call, send));
    call.end();
  },
});
new HealthImplementation({ "amplifier.v1.Module": "SERVING" }).addToServer(server);

const [cert, key, ca] = files.map((file) => readFileSync(file));
const trust = cert
  ? grpc.ServerCredentials.createSsl(ca, [{ cert_chain: cert, private_key: key }], true)
  : grpc.ServerCredentials.createInsecure();
server.bindAsync("127.0.0.1:0", trust, (error, port) => {
  if (error) throw error;
  console.log(port);
});
process.stdin.resume().on("end", () => process.exit(0)); // the end of stdin is the end
