// A module: its name, its operations, and the ways to serve it.
//
// Owns its description and its descriptor. The transports are neighbours, and are loaded when they are used.

import { resolve } from 'node:path'
import { isatty } from 'node:tty'
import { makeServer } from './grpc.js'
import { handler } from './http.js'
import { encode } from './json.js'
import { Op } from './op.js'
import { serve } from './stdio.js'

const NAME = /^[a-z0-9][a-z0-9._-]{0,63}$/
const KINDS = ['provider', 'tool', 'agent', 'hook', 'orchestrator', 'context']
const PROTOCOL = 1

/** @typedef {import('../index.js').ModuleOptions} ModuleOptions */

export class Module {
  name
  kind
  version
  capabilities
  limits
  #compile
  /** @type {Map<string, Op>} */
  #ops = new Map()

  /**
   * @param {string} name
   * @param {ModuleOptions} [options]
   */
  constructor(name, { kind = 'tool', version, capabilities = [], limits = {}, compile } = {}) {
    if (!NAME.test(name)) throw new TypeError(`name: expected ${NAME.source}, got '${name}'`)
    if (!KINDS.includes(kind)) throw new TypeError(`kind: expected one of ${KINDS.join(', ')}, got '${kind}'`)
    this.name = name
    this.kind = kind
    this.version = version
    this.capabilities = typeof capabilities === 'string' ? [capabilities] : [...capabilities]
    this.limits = { ...limits }
    this.#compile = compile
  }

  /**
   * @param {string} name
   * @param {import('./op.js').OpOptions | Function} options
   * @param {Function} [run]
   */
  op(name, options, run) {
    const [told, what] = typeof options === 'function' ? [{}, options] : [options, run]
    if (this.#ops.has(name)) throw new TypeError(`'${name}': expected a name that no other operation has`)
    this.#ops.set(name, new Op(name, told, /** @type {Function} */ (what), this.#compile))
    return this
  }

  describe() {
    const of = (/** @type {'inputs' | 'outputs'} */ what) => {
      return Object.fromEntries([...this.#ops].map(([name, op]) => [name, op[what]]))
    }
    const { name, version = null, kind, capabilities } = this
    return { name, version, kind, capabilities, protocol: PROTOCOL, inputs: of('inputs'), outputs: of('outputs') }
  }

  /** @param {string} [url] */
  descriptor(url) {
    const { name, kind, version, capabilities, limits } = this
    const transport = url ? { type: 'http', url } : { type: 'stdio', command: command() }
    const optional = { ...(version ? { version } : {}), ...(Object.keys(limits).length ? { limits } : {}) }
    return { name, kind, transport, capabilities, ...optional }
  }

  async run() {
    const asked = process.argv.slice(2).find((word) => /^--descriptor(=|$)/.test(word))
    if (asked !== undefined) {
      process.stdout.write(`${JSON.stringify(this.descriptor(asked.split('=').slice(1).join('=')), undefined, 2)}\n`)
      return
    }
    if (isatty(0)) {
      process.stderr.write(`${this.name} reads a JSON object a line from stdin; --descriptor prints its descriptor\n`)
    }
    await serve(this.name, this.#ops, this.limits, encode(this.describe(), 'description'))
  }

  handler() {
    return handler(this.name, this.#ops, this.limits, encode(this.describe(), 'description'))
  }

  /**
   * @template {import('./grpc.js').Server} Made
   * @param {{ Server: new (options?: any) => Made }} library
   * @param {object} [options]
   */
  grpc(library, options = {}) {
    return makeServer(library, options, this.name, this.#ops, this.limits, encode(this.describe(), 'description'))
  }
}

/** Give the command that starts this program again. */
function command() {
  const [node, program] = process.argv
  if (!program) throw new TypeError('a program that is no file has no descriptor')
  return [node, ...process.execArgv, resolve(program)]
}
