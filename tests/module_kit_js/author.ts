// What the types say to an author: tsc --strict, with the package installed from its tarball.

import { createServer } from 'node:http'
import { Cancelled, Module, ModuleError } from 'amplifier-module'
import type { Context, Decision, Event, Infer, Kind, Limits, Schema } from 'amplifier-module'

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false
const same = <A, B>(_: Same<A, B>): void => {}

const kind: Kind = 'agent'
const limits: Limits = { concurrency: 1 }
const module = new Module('author', { kind, limits, capabilities: 'sys:mounts', version: '1.0.0' })

module.op('plain', (args) => args.anything)
module.op('any', {}, async (args, context) => context.invoke('/mnt/tools/x', 'y', args, { timeout: 5, sessionId: 'ses' }))
module.op(
  'typed',
  {
    description: 'Each type.',
    inputs: {
      type: 'object',
      properties: {
        text: { type: 'string' },
        count: { type: 'integer', minimum: 1 },
        maybe: { type: ['number', 'null'] },
        order: { enum: ['up', 'down'] },
        places: { type: 'array', items: { type: 'object', properties: { name: { type: 'string' } }, required: ['name'] } },
        either: { anyOf: [{ type: 'boolean' }, { const: 'auto' }] },
        open: {},
        counts: { type: 'object', additionalProperties: { type: 'integer' } },
      },
      required: ['text', 'order', 'places'],
    },
    outputs: { type: 'null' },
  },
  async (args, context) => {
    same<typeof args.text, string>(true)
    same<typeof args.count, number | undefined>(true)
    same<typeof args.maybe, number | null | undefined>(true)
    same<typeof args.order, 'up' | 'down'>(true)
    same<typeof args.places, { name: string }[]>(true)
    same<typeof args.either, boolean | 'auto' | undefined>(true)
    same<typeof args.counts, Record<string, number> | undefined>(true)
    same<typeof args.open, any>(true)
    // @ts-expect-error the schema has no such property
    args.other
    await told(context)
  },
)

async function told(context: Context): Promise<void> {
  await context.chunk({ any: ['JSON'] })
  context.event('author:told', { n: 1 })
  const [left, id]: [number | undefined, string | undefined] = [context.timeLeft, context.sessionId]
  await fetch('http://127.0.0.1', { signal: context.signal }).catch(() => [left, id])
  const fragments: Record<string, unknown> = await context.getFragments()
  await context.setFragment('key', fragments, { sessionId: await context.forkSession(await context.createSession('goal')) })
  const [mount] = await context.mounts()
  same<typeof mount.version, string | null>(true)
  // @ts-expect-error milliseconds are a number
  await context.invoke('/mnt/tools/x', 'y', {}, { timeout: '5' })
}

module.op('on_event', ({ event }): Decision => {
  same<typeof event, Event>(true)
  return { decision: event.event === 'policy:request' ? 'deny' : 'abstain' }
})

// @ts-expect-error there is no such kind
new Module('m', { kind: 'tolo' })

const loose = { type: 'object', properties: { a: { type: 'string' } } } // its types are no literals
module.op('loose', { inputs: loose }, ({ a }) => a)

// @ts-expect-error the name of a type is wrong
export const wrong = { type: 'str' } satisfies Schema
const schema = { type: 'array', items: { type: 'string' } } as const satisfies Schema
same<Infer<typeof schema>, string[]>(true)

class Server {
  addService(_definition: object, _implementation: object): void {}
  bindAsync(_place: string): void {}
}
module.grpc({ Server }, { 'grpc.max_concurrent_streams': 10 }).bindAsync('127.0.0.1:0')
// @ts-expect-error a library has a Server
module.grpc({})

export const code: string = new ModuleError('own', 'text', { any: 1 }).code
export const isCancelled = (error: unknown): boolean => error instanceof Cancelled

if (process.argv[2] === 'serve') createServer(module.handler()).listen(0)
else await module.run()
