// One operation of a module: a function, and what its author says of it.
//
// Owns the reading of its arguments. How the function is run is not known here.

import { ModuleError } from './errors.js'
import { encode } from './json.js'
import { demand } from './messages.js'
import { compile, kindOf } from './schema.js'

const NAME_MAX = 256 // characters
const EVENT = { type: 'object', properties: { event: { type: 'object' } }, required: ['event'] }
const checkObject = compile({ type: 'object' }, 'args')

/**
 * @typedef {{ inputs?: object, outputs?: object | boolean, description?: string, stateless?: boolean }} OpOptions
 * @typedef {(schema: any, op: string) => (args: any) => string | null | undefined} Compile
 */

export class Op {
  name
  inputs
  outputs
  stateless
  run
  #check

  /**
   * @param {string} name
   * @param {OpOptions} options
   * @param {Function} run
   * @param {Compile} [compileForeign]
   */
  constructor(name, options, run, compileForeign) {
    if (typeof name !== 'string' || !name || name.length > NAME_MAX) {
      throw new TypeError(`an operation's name: expected 1 to ${NAME_MAX} characters, got ${String(name).slice(0, 100)}`)
    }
    if (typeof run !== 'function') throw new TypeError(`${name}: expected a function, got ${kindOf(run)}`)
    const { inputs = name === 'on_event' ? EVENT : { type: 'object' }, outputs = {}, description } = options
    demandSchema(kindOf(inputs) === 'object', `${name}: inputs`, 'a JSON Schema for an object', inputs)
    this.name = name
    this.inputs = { ...(description === undefined ? {} : { description }), ...copy(inputs, `${name}: inputs`) }
    this.outputs = copy(outputs, `${name}: outputs`)
    this.stateless = options.stateless ?? false
    this.run = run
    this.#check = compileForeign ? foreign(compileForeign(this.inputs, name)) : compile(this.inputs, `${name}: inputs`)
  }

  /**
   * Hold arguments against the schema. Throws `ModuleError` `bad_request` with the path of the problem.
   *
   * @param {unknown} args
   */
  arguments(args) {
    demand(checkObject, args, 'args')
    return demand(this.#check, args, 'args')
  }
}

/**
 * @param {boolean} condition
 * @param {string} where
 * @param {string} expected
 * @param {unknown} got
 */
function demandSchema(condition, where, expected, got) {
  if (!condition) throw new TypeError(`${where}: expected ${expected}, got ${kindOf(got)}`)
}

/**
 * @param {unknown} schema
 * @param {string} where
 */
function copy(schema, where) {
  demandSchema(kindOf(schema) === 'object' || typeof schema === 'boolean', where, 'a JSON Schema', schema)
  return JSON.parse(encode(schema, where))
}

/**
 * Make a check of a function that somebody else's library compiled.
 *
 * @param {(args: any) => string | null | undefined} check
 * @returns {import('./schema.js').Check}
 */
function foreign(check) {
  return (value) => {
    const problem = check(value)
    if (problem) throw new ModuleError('bad_request', problem)
    return undefined
  }
}
