// The types of the kit, for authors in TypeScript and for editors. The sources in `lib` are held against them.

import type { IncomingMessage, ServerResponse } from 'node:http'

/** What a module is, for whoever looks for one (protocol, section 1). */
export type Kind = 'provider' | 'tool' | 'agent' | 'hook' | 'orchestrator' | 'context'

/** A JSON Schema, draft 2020-12, of the keywords that the kit checks. */
export type Schema = boolean | SchemaObject

type TypeName = 'null' | 'boolean' | 'integer' | 'number' | 'string' | 'array' | 'object'

export interface SchemaObject {
  readonly type?: TypeName | readonly TypeName[]
  readonly enum?: readonly unknown[]
  readonly const?: unknown
  readonly properties?: Readonly<Record<string, Schema>>
  readonly required?: readonly string[]
  readonly additionalProperties?: Schema
  readonly propertyNames?: Schema
  readonly items?: Schema
  readonly prefixItems?: readonly Schema[]
  readonly minItems?: number
  readonly maxItems?: number
  readonly minLength?: number
  readonly maxLength?: number
  readonly pattern?: string
  readonly minimum?: number
  readonly maximum?: number
  readonly exclusiveMinimum?: number
  readonly exclusiveMaximum?: number
  readonly allOf?: readonly Schema[]
  readonly anyOf?: readonly Schema[]
  readonly oneOf?: readonly Schema[]
  readonly not?: Schema
  readonly $ref?: string
  readonly $defs?: Readonly<Record<string, Schema>>
  readonly $schema?: string
  readonly $id?: string
  readonly $comment?: string
  readonly title?: string
  readonly description?: string
  readonly default?: unknown
  readonly examples?: readonly unknown[]
  readonly deprecated?: boolean
  readonly readOnly?: boolean
  readonly writeOnly?: boolean
  readonly format?: string
  readonly contentEncoding?: string
  readonly contentMediaType?: string
  readonly contentSchema?: Schema
  readonly [extension: `x-${string}`]: unknown
}

/** The values that fit a schema that is written out in place. What it does not tell is `any`. */
export type Infer<S> = S extends { readonly const: infer Value }
  ? Value
  : S extends { readonly enum: readonly (infer Value)[] }
    ? Value
    : S extends { readonly anyOf: readonly (infer Part)[] } | { readonly oneOf: readonly (infer Part)[] }
      ? Infer<Part>
      : S extends { readonly type: readonly (infer Name)[] }
        ? Name extends unknown
          ? OfType<Name, S>
          : never
        : S extends { readonly type: infer Name }
          ? OfType<Name, S>
          : any

type OfType<Name, S> = Name extends keyof Plain
  ? Plain[Name]
  : Name extends 'array'
    ? S extends { readonly items: infer Item }
      ? Infer<Item>[]
      : any[]
    : Name extends 'object'
      ? OfObject<S>
      : any

interface Plain {
  null: null
  boolean: boolean
  integer: number
  number: number
  string: string
}

type OfObject<S> = S extends { readonly properties: infer Parts }
  ? Flat<
      { [Name in keyof Parts & Required<S>]: Infer<Parts[Name]> } & {
        [Name in Exclude<keyof Parts, Required<S>>]?: Infer<Parts[Name]>
      }
    >
  : S extends { readonly additionalProperties: infer Part extends SchemaObject }
    ? Record<string, Infer<Part>>
    : Record<string, any>

type Required<S> = S extends { readonly required: readonly (infer Name)[] } ? Name : never
type Flat<T> = { [Name in keyof T]: T[Name] }

/** Limits of a descriptor (section 1). `message_bytes` and `concurrency` bound what the kit does, too. */
export interface Limits {
  timeout_ms?: number
  idle_ms?: number
  memory_bytes?: number
  cpu_ms?: number
  message_bytes?: number
  concurrency?: number
}

export interface ModuleOptions {
  /** `tool` by default. */
  kind?: Kind
  version?: string
  /** Everything that the module needs (section 6); nothing by default. */
  capabilities?: string | Iterable<string>
  limits?: Limits
  /**
   * Compile the `inputs` of an operation with another validator, such as Ajv. The function that it gives returns what is
   * wrong with arguments, in one line, or nothing. Without it the kit checks them, and refuses a schema that it cannot.
   */
  compile?: (schema: any, op: string) => (args: any) => string | null | undefined
}

export interface OpOptions<S = Record<string, unknown>> {
  /** The JSON Schema of the arguments, which is held before the function is called. Any object by default. */
  inputs?: S
  /** The JSON Schema of the result. It is told, and not checked here. */
  outputs?: object | boolean
  /** What the operation does, for people and models. */
  description?: string
  /**
   * Do not wait in this process for system calls: the function runs again from its beginning, with the results so far, in
   * whatever process the request reaches. So it has to make the same calls again.
   */
  stateless?: boolean
}

/** The function of an operation. What it returns, or what its promise resolves to, is the result, written as JSON. */
export type OpFunction<Args> = (args: Args, context: Context) => unknown

/** A module of the Amplifier kernel, made of functions. */
export class Module {
  /** Throws `TypeError` for a name or a kind that there cannot be. */
  constructor(name: string, options?: ModuleOptions)
  readonly name: string
  readonly kind: string
  readonly version: string | undefined
  readonly capabilities: string[]
  readonly limits: Limits

  /** Make a function the operation of a hook: an observer, or a policy hook if it returns a decision. */
  op(name: 'on_event', run: OpFunction<{ event: Event }>): this
  /**
   * Make a function an operation. Several invocations run side by side. Throws `TypeError` with one line for a schema that
   * is none, or that has a keyword which the kit does not check.
   */
  op(name: string, run: OpFunction<Record<string, any>>): this
  op<const S extends object = Record<string, unknown>>(
    name: string,
    options: OpOptions<S>,
    run: OpFunction<Infer<S>>,
  ): this

  /** Give what the module answers to `describe` (section 2). */
  describe(): Description
  /** Give the module's descriptor (section 1): that of this program over STDIO, or that of an HTTP service. */
  descriptor(url?: string): Descriptor

  /**
   * Serve the module over STDIO until the end of stdin, which the process outlives by a second at most. What is printed
   * meanwhile goes to stderr. With the argument `--descriptor` the program prints its descriptor instead, with
   * `--descriptor=URL` that of the HTTP service at a URL. The promise never rejects.
   */
  run(): Promise<void>

  /** Give a listener for `http.createServer`. It answers each path that ends in `/health`, `/describe` or `/invoke`. */
  handler(): (request: IncomingMessage, response: ServerResponse) => void

  /**
   * Make a server of the service `amplifier.v1.Module`, with the standard health, which is not bound to a port yet. It is a
   * `Server` of the library, `@grpc/grpc-js`, made with the options: `module.grpc(grpc)`, then `server.bindAsync(…)`.
   */
  grpc<Server extends { addService(definition: any, implementation: any): void }>(
    library: { Server: new (options?: any) => Server },
    options?: object,
  ): Server
}

export interface Description {
  name: string
  version: string | null
  kind: string
  capabilities: string[]
  protocol: number
  inputs: Record<string, object>
  outputs: Record<string, object | boolean>
}

export interface Descriptor {
  name: string
  kind: string
  transport: { type: string; command?: string[]; url?: string }
  capabilities: string[]
  version?: string
  limits?: Limits
}

/** For a system call in another session than that of the invocation: one that this module created or forked. */
export interface CallOptions {
  sessionId?: string
}

export interface InvokeOptions extends CallOptions {
  /** Milliseconds. */
  timeout?: number
  /** Let the chunks of the other module go on to the caller of this one. */
  stream?: boolean
}

/**
 * The invocation that an operation runs for.
 *
 * From `call` on, the methods are system calls (section 8): the kernel makes them, if the module's capabilities have
 * `sys:NAME`. Those that run at the same time, as with `Promise.all`, are asked for together. One that fails rejects with
 * a `ModuleError` of the kernel's code.
 */
export interface Context {
  /** The session of the invocation. */
  readonly sessionId: string | undefined
  /** The request that the invocation is part of. */
  readonly requestId: string | undefined
  /** The invocation itself, in the tree of its request. */
  readonly spanId: string | undefined
  /** Milliseconds until the deadline of the whole invocation, at least 0; `undefined` if there is none. */
  readonly timeLeft: number | undefined
  /** Aborted when the caller gives up. */
  readonly signal: AbortSignal

  /**
   * Send any JSON to the caller before the result, and wait while the caller's side is full. Rejects with `Cancelled` once
   * the caller has given up.
   */
  chunk(value: unknown): Promise<void>
  /** Add an event to the reply; the kernel emits it in the module's name. At most 1000, others are left out. */
  event(event: string, data?: object): void

  /** Make a system call by its name, and give its result. */
  call(name: string, args?: object, options?: CallOptions): Promise<any>
  /** Invoke an operation of another module, and give its result. */
  invoke(path: string, op: string, args?: object, options?: InvokeOptions): Promise<any>
  /** Emit an event at once. */
  emit(event: string, data?: object, options?: CallOptions): Promise<void>
  /** List what is mounted in the session, or at one path. */
  mounts(path?: string, options?: CallOptions): Promise<Mount[]>
  /** Give the description of a mounted module, with the schemas of its operations. */
  describe(path: string, options?: CallOptions): Promise<Description>
  /** Mount a module, and give its full path. */
  mount(path: string, descriptor: object, options?: CallOptions): Promise<string>
  /** Unmount a module, or all at a path; give the paths of what was removed. */
  unmount(path: string, name?: string, options?: CallOptions): Promise<string[]>
  /** Let a mounted module, by its path, get the events of a name or pattern. The lowest priority comes first. */
  registerHook(event: string, endpointRef: string, priority?: number, options?: CallOptions): Promise<void>
  /** Give the session's context: all fragments by their keys. */
  getFragments(options?: CallOptions): Promise<Record<string, unknown>>
  /** Set one fragment of the session's context. */
  setFragment(key: string, value: unknown, options?: CallOptions): Promise<void>
  /** Create a session, and give its id. */
  createSession(goal: string, inputs?: object): Promise<string>
  /** Fork a session, and give the id of the fork. */
  forkSession(parentId: string): Promise<string>
  /** End a session that this module created or forked. */
  endSession(sessionId: string, status?: string): Promise<void>
}

export interface Mount {
  path: string
  name: string
  kind: string
  version: string | null
  capabilities: string[]
}

/** The envelope of an event (section 7), as a hook gets it. */
export interface Event {
  id: string
  ts: number
  event: string
  component: string
  seq?: number
  module?: string | null
  status?: string | null
  duration_ms?: number | null
  data?: Record<string, any> | null
  error?: { code: string; message: string; details?: Record<string, unknown> } | null
  session_id?: string | null
  request_id?: string | null
  span_id?: string | null
  parent_span_id?: string | null
}

/** What a policy hook returns for `policy:request` (section 6). */
export interface Decision {
  decision: 'allow' | 'deny' | 'abstain'
  capabilities?: string[]
  scope?: 'call' | 'session'
  reason?: string
}

/** An error that the caller of an operation gets as it is; also that of a system call that failed. */
export class ModuleError extends Error {
  /**
   * `code` is one of the protocol's, such as `bad_request`, or the module's own: at most 64 letters, digits, and `_.:-` after
   * the first. `message` is one line for people, `details` any JSON that helps to find the cause.
   */
  constructor(code: string, message: string, details?: Record<string, unknown>)
  code: string
  details: Record<string, unknown>
}

/** The caller has given up. Its `name` is `AbortError`; `context.signal` has it as its reason. */
export class Cancelled extends Error {}
