// Count words. Promises answer the requests at once; a cancel aborts the signal of its request.
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'

const description = JSON.parse(readFileSync(new URL('../describe.json', import.meta.url), 'utf8'))
const running = new Map() // an AbortController by the id of its request

class Failure extends Error {
  constructor(code, message, details) {
    super(message)
    this.error = { code, message, details } // undefined details are left out
  }
}

const isObject = (value) => value !== null && typeof value === 'object' && !Array.isArray(value)

function argument(value, fits, expected) {
  if (!fits(value)) throw new Failure('bad_request', `args.${expected}`)
  return value
}
const text = (value, name) => argument(value, (v) => typeof v === 'string', `${name}: expected a string`)
const wordsOf = (args) => text(args.text, 'text').match(/[^ \t\r\n]+/g) ?? []

const ops = {
  count(args) {
    const words = wordsOf(args)
    let longest = ''
    for (const word of words) if ([...word].length > [...longest].length) longest = word // by character, not UTF-16
    return { result: { words: words.length, characters: [...args.text].length, longest } }
  },

  report(args, { resume }) {
    const tool = text(args.tool, 'tool')
    const texts = argument(args.texts, Array.isArray, 'texts: expected a list of strings')
    let { asked, words } = resume?.state ?? { asked: 0, words: 0 }
    const counted = resume?.results[0]
    if (counted && !counted.ok) {
      throw new Failure('report_failed', `text ${asked} was not counted`, { cause: counted.error })
    }
    words += counted?.result.words ?? 0
    if (asked === texts.length) return { result: { words } }
    const invoke = { name: 'invoke', args: { path: tool, op: 'count', args: { text: texts[asked] } } }
    asked += 1
    const emit = { name: 'emit', args: { event: 'words:counted', data: { text: asked } } }
    return { pending: { syscalls: [invoke, emit], state: { asked, words } } }
  },

  tell(args, { say }) {
    const words = wordsOf(args)
    for (const word of words) say({ chunk: { word } })
    return { result: { words: words.length } }
  },

  async wait(args, { signal }) {
    const seconds = argument(args.seconds, (v) => typeof v === 'number', 'seconds: expected a number')
    await sleep(seconds * 1000, undefined, { signal }).catch(() => {
      throw new Failure('cancelled', 'nobody waits any more')
    })
    return { result: { seconds } }
  },

  fail(args) {
    throw new Failure('out_of_ink', 'buy some', argument(args.details, isObject, 'details: expected an object'))
  },
}

async function invoke(id, { op, args, resume }) {
  const controller = new AbortController()
  running.set(id, controller)
  try {
    if (!Object.hasOwn(ops, op)) throw new Failure('unsupported_op', `words does not know '${op}'`)
    const say = (chunk) => write({ id, ...chunk })
    const reply = await ops[op](args ?? {}, { resume, signal: controller.signal, say })
    write({ id, ...('result' in reply ? { ok: true } : {}), ...reply })
  } catch (failure) {
    if (!(failure instanceof Failure)) throw failure // the process ends, its stderr tells why
    write({ id, ok: false, error: failure.error })
  } finally {
    running.delete(id)
  }
}

function write(message) {
  process.stdout.write(`${JSON.stringify(message)}\n`)
}

function receive({ id, method, params }) {
  if (method === 'health') write({ id, ok: true, result: { status: 'ok' } })
  else if (method === 'describe') write({ id, ok: true, result: description })
  else if (method === 'invoke') invoke(id, params)
  else if (method === 'cancel') running.get(params.id)?.abort()
}

// Lines are cut at \n by hand: node:readline ends them at U+2028 too, which may stand in a JSON string as it is.
let pieces = []
process.stdin.setEncoding('utf8') // holds back the half of a character
process.stdin.on('data', (data) => {
  const [end, ...rest] = data.split('\n')
  pieces.push(end)
  for (const next of rest) {
    receive(JSON.parse(pieces.join('')))
    pieces = [next]
  }
})
process.stdin.on('end', () => {
  for (const controller of running.values()) controller.abort()
})
