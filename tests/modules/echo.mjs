// An STDIO echo in Node. Lines are cut at \n by hand: node:readline ends them at \r, U+2028 and U+2029 too, and the
// latter two may stand in a JSON string as they are.
//
// node echo.mjs [NAME]

const description = {
  name: process.argv[2] ?? 'echo',
  version: '0.1.0',
  kind: 'tool',
  capabilities: [],
  inputs: { echo: {} },
  outputs: { echo: {} },
}

function answer({ method, params }) {
  if (method === 'health') return { ok: true, result: { status: 'ok' } }
  if (method === 'describe') return { ok: true, result: description }
  if (params.op === 'echo') return { ok: true, result: params.args }
  return { ok: false, error: { code: 'unsupported_op', message: `echo does not know '${params.op}'` } }
}

let unfinished = ''
process.stdin.setEncoding('utf8') // holds back the half of a character
process.stdin.on('data', (text) => {
  const lines = (unfinished + text).split('\n')
  unfinished = lines.pop()
  for (const line of lines) {
    const request = JSON.parse(line)
    if (request.method === 'cancel') continue
    process.stdout.write(`${JSON.stringify({ id: request.id, ...answer(request) })}\n`)
  }
})
