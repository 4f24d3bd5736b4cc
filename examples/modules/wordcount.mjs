// A tool that counts words: a module over HTTP JSON, in plain Node 18.2 or later.
//
// node wordcount.mjs [PORT]   PORT 0, the default, takes a free port. The line on stdout names the URL.
// The server ends when its stdin ends, so it does not outlive the program that started it.

import { readFile } from 'node:fs/promises'
import { createServer } from 'node:http'

const description = {
  name: 'wordcount-http',
  version: '0.1.0',
  kind: 'tool',
  capabilities: ['fs:read:../..'],
  inputs: {
    count: {
      description: 'Counts words (separated by ASCII space), line ends and bytes of a file or a text.',
      type: 'object',
      properties: { path: { type: 'string' }, text: { type: 'string' } },
      oneOf: [{ required: ['path'] }, { required: ['text'] }],
    },
  },
  outputs: {
    count: {
      type: 'object',
      required: ['words', 'lines', 'bytes'],
      properties: { words: { type: 'integer' }, lines: { type: 'integer' }, bytes: { type: 'integer' } },
    },
  },
}

class Refused extends Error {
  constructor(status, code, message) {
    super(message)
    Object.assign(this, { status, code })
  }
}

const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value)
const badRequest = (message) => new Refused(400, 'bad_request', message)

async function content(args) {
  const [path, text] = ['path', 'text'].map((name) => isObject(args) && Object.hasOwn(args, name))
  if (path === text) throw badRequest('args: expected either path or text')
  const field = path ? 'path' : 'text'
  const value = args[field]
  if (typeof value !== 'string') throw badRequest(`args.${field}: expected a string`)
  if (/\p{Surrogate}/u.test(value) || (path && value.includes('\0'))) {
    throw badRequest(`args.${field}: expected well-formed text`)
  }
  if (!path) return Buffer.from(value)
  try {
    return await readFile(value)
  } catch (error) {
    throw badRequest(`args.path: expected a readable file, got ${error.code}`)
  }
}

// Words, line ends and bytes, as `wc` counts them in the C locale: only ASCII space separates words.
async function count(args) {
  const data = await content(args)
  let [words, lines, inWord] = [0, 0, false]
  for (const byte of data) {
    const isSpace = byte === 0x20 || (byte >= 0x09 && byte <= 0x0d)
    if (!isSpace && !inWord) words += 1
    if (byte === 0x0a) lines += 1
    inWord = !isSpace
  }
  return { words, lines, bytes: data.length }
}

async function body(request) {
  const parts = []
  for await (const part of request) parts.push(part)
  let params
  try {
    params = JSON.parse(parts.length ? Buffer.concat(parts) : '{}')
  } catch {} // params stays undefined, which is no object
  if (!isObject(params)) throw badRequest('expected a JSON object')
  return params
}

async function answer(request) {
  if (request.method !== 'POST') throw new Refused(405, 'unsupported_op', 'expected POST')
  const params = await body(request)
  if (request.url === '/health') return { status: 'ok' }
  if (request.url === '/describe') return description
  if (request.url !== '/invoke') throw new Refused(404, 'unsupported_op', `there is no ${request.url}`)
  if (params.op !== 'count') throw new Refused(404, 'unsupported_op', `wordcount-http does not know '${params.op}'`)
  return { ok: true, result: await count(params.args) }
}

// No keepAliveTimeout: it could close an idle connection while a client sends the next request, which would be lost.
const server = createServer({ keepAliveTimeout: 0, noDelay: true }, async (request, response) => {
  let [status, reply] = [200, undefined]
  try {
    reply = await answer(request)
  } catch (error) {
    const { code, message } = error instanceof Refused ? error : { code: 'internal', message: String(error) }
    status = error.status ?? 500
    reply = { ok: false, error: { code, message } }
  }
  response.shouldKeepAlive = server.listening
  const bytes = Buffer.from(JSON.stringify(reply))
  const id = request.headers['x-request-id']
  if (id) response.setHeader('x-request-id', id) // repeated, it lets the kernel keep the connection
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': bytes.length }).end(bytes)
})

server.listen(Number(process.argv[2] ?? 0), '127.0.0.1', () => {
  console.log(`listening on http://127.0.0.1:${server.address().port}`)
})

process.stdin.resume().on('end', () => {
  server.close() // requests in progress are answered, and then close their connections
  server.closeIdleConnections()
})
