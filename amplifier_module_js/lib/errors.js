// What goes wrong in an operation, and the `error` that its reply has then (protocol, section 5).
//
// Owns that translation. It knows neither a transport nor how an operation is run.

import { inspect } from 'node:util'

const KERNEL_CODES = ['oom', 'budget_exceeded', 'unreachable']
const CODE = /^[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}$/
const MESSAGE_MAX = 8192 // characters
const TEXT_MAX = 1000 // characters of a foreign error's text

/** @typedef {{ code: string, message: string, details?: Record<string, unknown> }} ErrorBody */

export class ModuleError extends Error {
  /**
   * @param {string} code
   * @param {string} message
   * @param {Record<string, unknown>} [details]
   */
  constructor(code, message, details) {
    super(message)
    this.name = 'ModuleError'
    this.code = code
    this.details = details ?? {}
  }
}

export class Cancelled extends Error {
  constructor() {
    super('the caller gave up')
    this.name = 'AbortError' // as of fetch and timers: what tells the one tells the other
  }
}

/**
 * Make the `error` of a reply. Of an error that is no `ModuleError`, stderr gets the stack.
 *
 * @param {unknown} error
 * @param {string} op
 * @returns {ErrorBody}
 */
export function errorBody(error, op) {
  if (error instanceof ModuleError) return ofModuleError(error)
  if (error instanceof Cancelled) return { code: 'cancelled', message: `${op} was cancelled` }
  complain(textOf(error, 'stack'))
  return { code: 'internal', message: oneLine(textOf(error, 'message')).slice(0, TEXT_MAX) }
}

/**
 * Write lines to stderr.
 *
 * @param {string} text
 */
export function complain(text) {
  process.stderr.write(`${text}\n`)
}

/**
 * Give an error as it is. A code that only the kernel may use came from a system call: it becomes the cause.
 *
 * @param {ModuleError} error
 * @returns {ErrorBody}
 */
function ofModuleError(error) {
  const code = String(error.code)
  const message = cut(oneLine(String(error.message)))
  const body = { code, message, ...(Object.keys(error.details).length ? { details: error.details } : {}) }
  if (KERNEL_CODES.includes(code)) {
    return { code: 'internal', message: cut(`${code}: ${message}`), details: { cause: body } }
  }
  if (CODE.test(code)) return body
  return { ...body, code: 'internal', message: cut(`'${code.slice(0, 64)}' is no code: ${message}`) }
}

/** @param {string} text */
function cut(text) {
  return text.length > MESSAGE_MAX ? `${text.slice(0, MESSAGE_MAX - 1).toWellFormed()}…` : text
}

/** @param {string} text */
function oneLine(text) {
  return text.split(/\s+/u).join(' ').trim().toWellFormed()
}

/**
 * Give what an error says: its class and message, or its stack. The text of a foreign error is foreign code.
 *
 * @param {unknown} error
 * @param {'message' | 'stack'} what
 * @returns {string}
 */
function textOf(error, what) {
  try {
    if (!(error instanceof Error)) return `threw ${inspect(error, { depth: 1 })}`
    return what === 'stack' ? inspect(error) : `${error.name}: ${error.message}`
  } catch {
    return 'an error whose text cannot be read'
  }
}
