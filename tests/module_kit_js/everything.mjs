// A module made with the kit, for its tests: everything.mjs [http FD | grpc FOLDER | one | small] [--descriptor[=URL]].
//
// `one` takes one request at a time, `small` messages of 4 KiB. `http FD` serves the listening socket FD. `grpc FOLDER`
// serves a port, which it prints, with the library that is installed in the folder, until the end of stdin.
// Its operations are those of tests/module_kit/everything.py, so that the same tests hold for both.

import { execFileSync } from 'node:child_process'
import { createServer } from 'node:http'
import { createRequire } from 'node:module'
import { setTimeout as sleep } from 'node:timers/promises'
import { Cancelled, Module, ModuleError } from '../../amplifier_module_js/index.js'

const capabilities = ['sys:invoke:/mnt/tools/*', 'sys:mounts', 'sys:mount', 'sys:unmount', 'sys:describe', 'sys:emit']
capabilities.push('sys:context.get', 'sys:context.set_fragment', 'sys:register_hook')
capabilities.push('net:connect:*', 'sys:session.create', 'sys:session.fork', 'sys:session.end')
const limits = { one: { concurrency: 1 }, small: { message_bytes: 4096 } }[process.argv[2]] ?? {}
const module = new Module('everything', { kind: 'orchestrator', version: '1.0.0', capabilities, limits })

const object = (properties, ...required) => {
  return { inputs: { type: 'object', properties, required, additionalProperties: false } }
}
const text = { type: 'string' }
const whole = { type: 'integer' }
const number = { type: 'number' }
const flag = { type: 'boolean' }

module.op(
  'count',
  {
    description: 'Count the words of a text.',
    ...object({ text: { type: 'string', description: 'what to count in' } }, 'text'),
    outputs: { type: 'object', additionalProperties: { type: 'integer' } },
  },
  (args) => ({ words: args.text.split(/\s+/).filter(Boolean).length }),
)

module.op('echo', object({ value: {} }), ({ value = null }) => value)

const tree = { type: 'object', required: ['value'], properties: { value: whole } }
tree.properties.children = { type: 'array', items: { $ref: '#/$defs/tree' } }
const place = { type: 'object', required: ['name'], properties: { name: text, height: number } }
module.op('total', { inputs: { ...object({ tree: { $ref: '#/$defs/tree' } }, 'tree').inputs, $defs: { tree } } }, (args) => {
  const total = ({ value, children = [] }) => children.map(total).reduce((sum, each) => sum + each, value)
  return total(args.tree)
})
module.op('rich', object({ place, tags: { type: 'array', items: text } }, 'place'), (args) => {
  return { ...args.place, height: (args.place.height ?? 0) + (args.tags ?? ['none']).length }
})

module.op('noisy', () => {
  console.log('printed ✓')
  process.stdout.write('written\n')
  execFileSync('sh', ['-c', 'echo from C; echo from a child; cat'], { stdio: 'inherit' }) // its stdin is empty
  return 'quiet'
})

class Unprintable extends Error {
  get message() {
    throw new Error('no text')
  }
}

const nested = (depth) => {
  let value = []
  for (let n = 0; n < depth; n++) value = [value]
  return value
}

const ways = {
  own: () => Promise.reject(new ModuleError('out_of_ink', 'buy some\nsoon', { colour: 'cyan' })),
  kernel: () => Promise.reject(new ModuleError('unreachable', 'the other one')),
  code: () => Promise.reject(new ModuleError('', 'no code')),
  details: () => Promise.reject(new ModuleError('own', 'with details that are no JSON', { what: new Map() })),
  long: () => Promise.reject(new ModuleError('own', 'x'.repeat(10_000))),
  unprintable: () => Promise.reject(new Unprintable()),
  text: () => Promise.reject('only text'),
  nan: () => ({ n: [1, Infinity] }),
  null: () => ({ n: [1, null, { m: 1.5 }] }),
  bigint: () => ({ n: [2n ** 64n, -1n, null], undefined }),
  nothing: () => undefined,
  empty: () => ({ date: new Date(0), at: [null, {}, Object.create(null), , 1], text: '{}', call() {} }),
  json: () => ({ toJSON: () => ({ empty: {}, n: NaN }) }),
  function: () => () => 1,
  promise: () => ({ words: Promise.resolve(1) }),
  map: () => new Map([[1, 2]]),
  surrogate: () => 'a \ud800',
  'surrogate key': () => ({ '\ud800': 1 }),
  backslash: () => '\\ud800',
  circular: () => {
    const value = {}
    return Object.assign(value, { value })
  },
  deep: () => nested(100_000),
  large: () => 'x'.repeat(33 << 20),
  'large text': () => '€'.repeat(12 << 20),
  timer: () => {
    setTimeout(() => {
      throw new Error('in a timer')
    }, 1)
    return sleep(30_000)
  },
  floating: async () => {
    Promise.reject(new Error('nobody waits for it'))
    await sleep(30_000)
  },
  late: () => {
    setTimeout(() => {
      throw new Error('after the reply')
    }, 1)
    return 'answered'
  },
}

module.op('fail', object({ how: text }, 'how'), ({ how }) => {
  if (Object.hasOwn(ways, how)) return ways[how]()
  throw new RangeError(`I do not know\n${how}`)
})

const stream = async ({ to, size = 0, pause = 0, drain = true }, context) => {
  for (let n = 1; n <= to; n++) {
    const sent = context.chunk({ n, pad: 'x'.repeat(size) })
    if (drain) await sent
    if (pause) await sleep(pause * 1000)
  }
  return to
}
for (const name of ['stream', 'stream.async']) {
  module.op(name, object({ to: whole, size: whole, pause: number, drain: flag }, 'to'), stream)
}

module.op('wait', object({ seconds: number }, 'seconds'), async ({ seconds }, { signal }) => {
  try {
    await sleep(seconds * 1000, undefined, { signal })
  } catch (error) {
    console.log('told')
    throw error
  }
  return 'waited'
})

module.op('hang', object({ seconds: number }, 'seconds'), async ({ seconds }) => {
  await sleep(seconds * 1000) // and listens to nobody
})

module.op('nap', object({ seconds: number, stubborn: number }), async ({ seconds = 0, stubborn = 0 }, context) => {
  const { signal } = context
  try {
    await sleep(seconds * 1000, undefined, { signal })
  } catch (error) {
    console.log('cancelled in a nap')
    if (stubborn) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, stubborn * 1000)
    context.chunk('nobody waits for this')
    context.mounts() // nor for this: both are no unhandled rejections
    for (const [call, told] of [['chunk', 'no chunk after the end'], ['mounts', 'no call either']]) {
      await context[call]('late').catch((late) => late instanceof Cancelled && console.log(told))
    }
    throw error
  }
  const { sessionId, requestId, spanId, timeLeft } = context
  const left = timeLeft === undefined ? null : timeLeft / 1000
  return { session: sessionId, request: requestId, span: spanId, left, cancelled: signal.aborted }
})

module.op('tell', object({ events: whole }, 'events'), ({ events }, context) => {
  for (let n = 0; n < events; n++) context.event('kit:told', { n })
})

module.op('relay', object({ path: text, op: text, args: { type: 'object' }, stream: flag }), (told, context) => {
  return context.invoke(told.path, told.op, told.args, { timeout: 20_000, stream: told.stream })
})

const call = async (context, path, text) => {
  try {
    return (await context.invoke(path, 'count', { text })).words
  } catch (error) {
    return error.code
  }
}

// Call modules together, and then one after the other; a failed one gives its code.
const steps = async ({ paths }, context) => {
  context.event('kit:step', { at: 'start' })
  await context.chunk('start')
  const results = await Promise.all(paths.map((path) => call(context, path, 'a b')))
  await context.chunk('together')
  context.event('kit:step', { at: 'together' })
  for (const path of paths) results.push(await call(context, path, 'a b c'))
  return results
}
const paths = object({ paths: { type: 'array', items: text } }, 'paths')
module.op('steps', paths, steps)
module.op('steps.stateless', { ...paths, stateless: true }, steps)

module.op('diverge', { stateless: true }, async (_, context) => {
  await context.call('mounts', { path: String(Math.random()) })
  return context.call('emit')
})

module.op('heap', { ...object({ size: whole }, 'size'), stateless: true }, async ({ size }, context) => {
  const results = []
  for (let n = 0; n < size; n++) results.push(await context.call('mounts', { n }))
  return results
})

module.op('together', object({ count: whole, size: whole }), async ({ count, size }, context) => {
  const calls = Array.from({ length: count }, () => context.call('mounts', { n: 'x'.repeat(size) }))
  return (await Promise.all(calls)).length
})

// The kit asks for system calls in the next turn of the event loop; no answer comes before the one after that.
const asked = () => new Promise(setImmediate)

// Work on while the system calls are made.
module.op('beside', async (_, context) => {
  const asking = context.mounts()
  await asked()
  await context.chunk('between')
  context.event('kit:between')
  await Promise.all([asking, context.emit('kit:later')])
  return 'done'
})

// Answer without waiting for a system call that the kernel makes.
module.op('leave', object({ chunk: whole }), async ({ chunk = 0 }, context) => {
  context.mounts()
  await asked()
  await context.chunk('x'.repeat(chunk))
  context.mounts()
  return 'left'
})

// Fail where nobody looks, while the kernel makes a system call.
module.op('break', async (_, context) => {
  const asking = context.mounts()
  setImmediate(() => setImmediate(() => Promise.reject(new Error('meanwhile'))))
  await asking
  await sleep(30_000)
})

// Make each system call once.
module.op('every', object({ descriptor: { type: 'object' } }, 'descriptor'), async ({ descriptor }, context) => {
  const path = await context.mount('/mnt/tools', descriptor)
  const names = (await context.mounts('/mnt/tools')).map(({ name }) => name)
  const inputs = Object.keys((await context.describe(path)).inputs)
  await context.registerHook('kit:*', path, 5)
  await context.setFragment('key', { a: [1] })
  await context.emit('kit:emitted', { n: 1 })
  const session = await context.createSession('sub', {})
  const fork = await context.forkSession(session)
  await context.endSession(fork, 'done')
  await context.endSession(session)
  const removed = await context.unmount('/mnt/tools', names[0])
  await context.mount('/mnt/tools', descriptor)
  removed.push(...(await context.unmount('/mnt/tools')))
  return { path, names, inputs, removed, got: await context.getFragments() }
})

setTimeout(() => {
  if (process.argv[2] === 'broken') throw new Error('in no operation')
}, 1)
if (process.argv[2] === 'http') {
  createServer(module.handler()).listen({ fd: Number(process.argv[3]) })
} else if (process.argv[2] === 'grpc') {
  const library = createRequire(`${process.argv[3]}/`)('@grpc/grpc-js')
  const server = module.grpc(library)
  server.bindAsync('127.0.0.1:0', library.ServerCredentials.createInsecure(), (_, port) => console.log(port))
  process.stdin.resume().on('end', () => process.kill(process.pid)) // exit() can hang for ever: nodejs/node#54918
} else await module.run()
