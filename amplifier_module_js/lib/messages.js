// The messages of the protocol, section 2, as a module reads and writes them.
//
// Owns their shapes. It does no I/O.

import { ModuleError, errorBody } from './errors.js'
import { decode, encode } from './json.js'
import { compile } from './schema.js'

/** The most events of one reply. */
export const EVENTS_MAX = 1000

/**
 * @typedef {{ ok: boolean, result?: unknown, error?: { code: string, message: string,
 *   details?: Record<string, unknown> | null } | null }} Outcome
 * @typedef {{ state: unknown, results: Outcome[] }} Resume
 * @typedef {{ op: string, args: unknown, sessionId: string | undefined, requestId: string | undefined,
 *   spanId: string | undefined, deadline: number | undefined, resume: Resume | undefined }} Invocation
 * @typedef {{ id: string | number | undefined, method: string, params: unknown }} Request
 * @typedef {{ run: string, done: [string, Outcome][], asked: string[], chunks: number, events: number }} State
 */

const TEXT = { type: ['string', 'null'] }
const ID = { type: ['string', 'integer', 'null'] }
const FAILURE = {
  type: ['object', 'null'],
  required: ['code', 'message'],
  properties: { code: { type: 'string' }, message: { type: 'string' }, details: { type: ['object', 'null'] } },
}
const OUTCOME = { type: 'object', required: ['ok'], properties: { ok: { type: 'boolean' }, error: FAILURE } }
const RESUME = { type: ['object', 'null'], properties: { results: { type: ['array', 'null'], items: OUTCOME } } }
const IDS = { session_id: TEXT, request_id: TEXT, span_id: TEXT }
const DONE = { type: 'array', prefixItems: [{ type: 'string' }, OUTCOME], minItems: 2 }
const COUNT = { type: 'integer', minimum: 0 }

const checkRequest = object(['method'], { method: { type: 'string' }, id: ID })
const checkCancel = object(['id'], { id: { type: ['string', 'integer'] } })
const checkInvoke = object(['op'], { op: { type: 'string' }, ...IDS, deadline_ms: { type: ['number', 'null'] }, resume: RESUME })
const checkState = object([], {
  run: { type: 'string' },
  done: { type: 'array', items: DONE },
  asked: { type: 'array', items: { type: 'string' } },
  chunks: COUNT,
  events: COUNT,
})

/**
 * @param {string[]} required
 * @param {Record<string, unknown>} properties
 */
function object(required, properties) {
  return compile({ type: 'object', required, properties }, 'message')
}

/**
 * Read JSON. Throws `ModuleError` `bad_request`.
 *
 * @param {Buffer} text
 * @param {string} name
 */
export function read(text, name) {
  try {
    return decode(text)
  } catch (error) {
    throw new ModuleError('bad_request', `${name}: ${error instanceof Error ? error.message : error}`)
  }
}

/**
 * Hold a value against a check. Throws `ModuleError` `bad_request` with the path of the problem.
 *
 * @param {import('./schema.js').Check} check
 * @param {unknown} value
 * @param {string} name
 * @returns {any}
 */
export function demand(check, value, name) {
  const flaw = check(value, name)
  if (flaw) throw new ModuleError('bad_request', `${flaw.path}: ${flaw.problem}`, { path: flaw.path })
  return value
}

/**
 * Read one line of stdin.
 *
 * @param {unknown} value
 * @returns {Request}
 */
export function readRequest(value) {
  const { id, method, params } = demand(checkRequest, value, 'request')
  return { id: id ?? undefined, method, params }
}

/**
 * Read the id of the request that a cancel names.
 *
 * @param {unknown} params
 * @returns {string | number}
 */
export function readCancel(params) {
  return demand(checkCancel, params, 'params').id
}

/**
 * Read the parameters of an invoke. The deadline is on the clock of `performance.now()`, in milliseconds.
 *
 * @param {unknown} params
 * @returns {Invocation}
 */
export function readInvoke(params) {
  const told = demand(checkInvoke, params, 'params')
  return {
    op: told.op,
    args: told.args ?? {},
    sessionId: told.session_id ?? undefined,
    requestId: told.request_id ?? undefined,
    spanId: told.span_id ?? undefined,
    deadline: typeof told.deadline_ms === 'number' ? performance.now() + told.deadline_ms : undefined,
    resume: told.resume ? { state: told.resume.state, results: told.resume.results ?? [] } : undefined,
  }
}

/**
 * Read the state that this kit made.
 *
 * @param {unknown} value
 * @returns {State}
 */
export function readState(value) {
  return { run: '', done: [], asked: [], chunks: 0, events: 0, ...demand(checkState, value, 'resume.state') }
}

/**
 * Make the reply with a result, given as JSON.
 *
 * @param {string} result
 * @param {string[]} [events]
 */
export function success(result, events) {
  return withEvents(`{"ok":true,"result":${result}`, events)
}

/**
 * Make the reply that says what went wrong. `details` that are no JSON are left out.
 *
 * @param {unknown} error
 * @param {string} op
 * @param {string[]} [events]
 */
export function failure(error, op, events) {
  const body = errorBody(error, op)
  return withEvents(`{"ok":false,"error":${encodeError(body)}`, events)
}

/** @param {import('./errors.js').ErrorBody} body */
function encodeError(body) {
  try {
    return encode(body, 'error')
  } catch (unfit) {
    const omitted = unfit instanceof Error ? unfit.message.slice(0, 200).toWellFormed() : ''
    return encode({ ...body, details: { omitted } }, 'error')
  }
}

/**
 * Make the reply that asks for system calls. All are given as JSON.
 *
 * @param {string[]} calls
 * @param {string} state
 * @param {string[]} [events]
 */
export function pending(calls, state, events) {
  return withEvents(`{"pending":{"syscalls":[${calls}],"state":${state}}`, events)
}

/**
 * @param {string} text
 * @param {string[]} [events]
 */
function withEvents(text, events = []) {
  return events.length ? `${text},"events":[${events}]}` : `${text}}`
}
