// What an operation may know and do while it runs.
//
// Owns the names that authors use. What stands behind them belongs to the run of the operation.

import { Cancelled } from './errors.js'

/**
 * @typedef {{ invocation: import('./messages.js').Invocation, signal: AbortSignal, chunk(value: unknown): void,
 *   room(): Promise<void>, event(event: string, data: object): void,
 *   call(name: string, args: object): Promise<any> }} Behind
 * @typedef {import('../index.js').CallOptions} CallOptions
 * @typedef {import('../index.js').InvokeOptions} InvokeOptions
 */

export class Context {
  #run

  /** @param {Behind} run */
  constructor(run) {
    this.#run = run
  }

  get sessionId() {
    return this.#run.invocation.sessionId
  }

  get requestId() {
    return this.#run.invocation.requestId
  }

  get spanId() {
    return this.#run.invocation.spanId
  }

  get timeLeft() {
    const { deadline } = this.#run.invocation
    return deadline === undefined ? undefined : Math.max(0, deadline - performance.now())
  }

  get signal() {
    return this.#run.signal
  }

  /**
   * @param {unknown} value
   * @returns {Promise<void>}
   */
  chunk(value) {
    return quiet(this.#chunk(value))
  }

  /**
   * @param {string} event
   * @param {object} [data]
   */
  event(event, data = {}) {
    this.#run.event(event, data)
  }

  /**
   * @param {string} name
   * @param {object} [args]
   * @param {CallOptions} [options]
   * @returns {Promise<any>}
   */
  call(name, args = {}, { sessionId } = {}) {
    return quiet(this.#run.call(name, sessionId === undefined ? args : { ...args, session_id: sessionId }))
  }

  /**
   * @param {string} path
   * @param {string} op
   * @param {object} [args]
   * @param {InvokeOptions} [options]
   */
  invoke(path, op, args = {}, { timeout, stream, ...options } = {}) {
    const limited = timeout === undefined ? {} : { timeout_ms: Math.max(1, Math.round(timeout)) }
    return this.call('invoke', { path, op, args, ...limited, ...(stream ? { stream } : {}) }, options)
  }

  /**
   * @param {string} event
   * @param {object} [data]
   * @param {CallOptions} [options]
   */
  async emit(event, data = {}, options) {
    await this.call('emit', { event, data }, options)
  }

  /**
   * @param {string} [path]
   * @param {CallOptions} [options]
   */
  mounts(path, options) {
    return this.call('mounts', path === undefined ? {} : { path }, options)
  }

  /**
   * @param {string} path
   * @param {CallOptions} [options]
   */
  describe(path, options) {
    return this.call('describe', { path }, options)
  }

  /**
   * @param {string} path
   * @param {object} descriptor
   * @param {CallOptions} [options]
   * @returns {Promise<string>}
   */
  async mount(path, descriptor, options) {
    return (await this.call('mount', { path, descriptor }, options)).path
  }

  /**
   * @param {string} path
   * @param {string} [name]
   * @param {CallOptions} [options]
   * @returns {Promise<string[]>}
   */
  async unmount(path, name, options) {
    return (await this.call('unmount', name === undefined ? { path } : { path, name }, options)).removed
  }

  /**
   * @param {string} event
   * @param {string} endpointRef
   * @param {number} [priority]
   * @param {CallOptions} [options]
   */
  async registerHook(event, endpointRef, priority = 0, options) {
    await this.call('register_hook', { event, endpoint_ref: endpointRef, priority }, options)
  }

  /**
   * @param {CallOptions} [options]
   * @returns {Promise<Record<string, unknown>>}
   */
  async getFragments(options) {
    return (await this.call('context.get', {}, options)).fragments
  }

  /**
   * @param {string} key
   * @param {unknown} value
   * @param {CallOptions} [options]
   */
  async setFragment(key, value, options) {
    await this.call('context.set_fragment', { key, value }, options)
  }

  /**
   * @param {string} goal
   * @param {object} [inputs]
   * @returns {Promise<string>}
   */
  async createSession(goal, inputs = {}) {
    return (await this.call('session.create', { plan: { goal, inputs } })).session_id
  }

  /**
   * @param {string} parentId
   * @returns {Promise<string>}
   */
  async forkSession(parentId) {
    return (await this.call('session.fork', { parent_id: parentId })).session_id
  }

  /**
   * @param {string} sessionId
   * @param {string} [status]
   */
  async endSession(sessionId, status) {
    await this.call('session.end', { session_id: sessionId, ...(status === undefined ? {} : { status }) })
  }

  /** @param {unknown} value */
  async #chunk(value) {
    this.#run.chunk(value)
    await this.#run.room()
  }
}

/**
 * See to it that a promise that nobody awaits is no unhandled rejection if it only says that the caller gave up.
 *
 * @template T
 * @param {Promise<T>} promise
 * @returns {Promise<T>}
 */
function quiet(promise) {
  const told = promise.catch((error) => {
    if (error instanceof Cancelled) told.catch(() => {})
    throw error
  })
  return told
}
