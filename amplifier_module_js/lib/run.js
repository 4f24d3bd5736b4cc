// One invocation of an operation, from its arguments to its reply, with its system calls over `pending` and `resume`
// (protocol, section 2).
//
// Owns the turns: which calls are asked for together, and how the function goes on with their results. It waits for them
// in this process, or, as a stateless operation, runs again from its beginning with the results so far.

import { AsyncLocalStorage } from 'node:async_hooks'
import { createHash, randomUUID } from 'node:crypto'
import { inspect } from 'node:util'
import { Context } from './context.js'
import { Cancelled, ModuleError, complain } from './errors.js'
import { count, encode } from './json.js'
import { EVENTS_MAX, failure, pending, readState, success } from './messages.js'

/**
 * @typedef {import('./channel.js').Channel} Channel
 * @typedef {import('./messages.js').Invocation} Invocation
 * @typedef {import('./messages.js').Outcome} Outcome
 * @typedef {import('./messages.js').Resume} Resume
 * @typedef {import('./op.js').Op} Op
 */

const FRAME = 1024 // bytes of a message around its result
const CALLS_MAX = 1000 // system calls in one reply
const WAITING_MAX = 1024 // runs that wait for their system calls
const GRACE = 1000 // milliseconds after its deadline for which a run waits for results
const BETWEEN_MAX = 1024 * 1024 // characters of chunks that are kept while there is no request to send them for

/** @type {AsyncLocalStorage<Run>} */
const running = new AsyncLocalStorage()

/** Give the run that the code which calls this, however indirectly, is part of. */
export const currentRun = () => running.getStore()

/** The runs that wait for their system calls, by names that nobody guesses. */
export class Waiting {
  /** @type {Map<string, Run>} */
  #runs = new Map()

  /**
   * Keep a run until its results come, and give its name. Of too many, the oldest one is given up.
   *
   * @param {Run} run
   */
  keep(run) {
    const [oldest] = this.#runs.keys()
    if (this.#runs.size >= WAITING_MAX) this.drop(oldest)
    const name = randomUUID()
    this.#runs.set(name, run)
    return name
  }

  /**
   * Give the run that waits for these results, once. Throws `ModuleError`.
   *
   * @param {Resume} resume
   */
  take(resume) {
    const name = readState(resume.state).run
    const run = this.#runs.get(name)
    if (!run) {
      throw new ModuleError(
        'interrupted',
        'no run of this process waits for these results: it was started again, or another process had the run. ' +
          'An operation that is stateless can go on anywhere',
      )
    }
    this.#runs.delete(name)
    return run
  }

  /**
   * Give up a run that still waits.
   *
   * @param {string} name
   */
  drop(name) {
    this.#runs.get(name)?.giveUp()
    this.#runs.delete(name)
  }
}

/** One system call that was asked for, as JSON. */
class Call {
  settled = false

  /** @param {string} text */
  constructor(text) {
    this.text = text
    /** @type {Promise<any>} */
    this.promise = new Promise((resolve, reject) => {
      this.resolve = resolve
      this.reject = reject
    })
  }

  digest() {
    return createHash('sha256').update(this.text).digest('hex').slice(0, 24)
  }

  /**
   * Give the function its result, or throw the error there.
   *
   * @param {Outcome} outcome
   */
  settle({ ok, result, error }) {
    if (ok) return this.resolve?.(result)
    const { code, message, details } = error ?? { code: 'internal', message: 'a system call failed without an error' }
    this.reject?.(new ModuleError(code, message, details ?? undefined))
  }
}

export class Run {
  op
  invocation
  /** Settles when the function has ended; it never rejects. */
  settled = Promise.resolve()
  #channel
  #limit
  #waiting
  #abort = new AbortController()
  #ended = false
  #asking = false
  /** @type {string[]} */
  #events = []
  /** @type {string[]} */
  #between = []
  /** @type {Call[]} */
  #wanted = []
  /** @type {Call[]} */
  #asked = []
  /** @type {string | undefined} */
  #last
  /** @type {NodeJS.Timeout | undefined} */
  #expiry
  #past = readState({})
  #seen = readState({}) // what this run has done again of its past

  /**
   * @param {Op} op
   * @param {Invocation} invocation
   * @param {Channel} channel
   * @param {number} limit of a message, in bytes
   * @param {Waiting} waiting
   */
  constructor(op, invocation, channel, limit, waiting) {
    this.op = op
    this.invocation = invocation
    this.#channel = channel
    this.#limit = limit - FRAME
    this.#waiting = waiting
  }

  get signal() {
    return this.#abort.signal
  }

  /** Begin the function; a stateless one with the results of its past. */
  start() {
    this.#channel.stop = () => this.#stop()
    this.settled = running.run(this, () => this.#main())
  }

  /**
   * Go on with the results of the calls that were asked for.
   *
   * @param {Invocation} invocation
   * @param {Resume} resume
   * @param {Channel} channel
   */
  resume(invocation, resume, channel) {
    clearTimeout(this.#expiry)
    this.invocation = invocation
    this.#channel = channel
    const asked = this.#asked.splice(0)
    if (asked.length !== resume.results.length) {
      this.#finish(this.#failed(wrongNumber(asked.length, resume.results.length)))
      this.#stop(asked)
      return
    }
    channel.stop = () => this.#stop()
    for (const message of this.#between.splice(0)) channel.chunk(message)
    asked.forEach((call, n) => call.settle(resume.results[n]))
    if (this.#last !== undefined) this.#finish(this.#last) // the function did not wait for the calls
    this.#askSoon()
  }

  /** End a run that nobody resumes. */
  giveUp() {
    clearTimeout(this.#expiry)
    this.#stop()
  }

  /**
   * Answer that something went wrong which the function itself did not throw, and stop it.
   *
   * @param {unknown} error
   */
  fail(error) {
    if (this.#ended) {
      if (!isAbort(error)) complain(inspect(error))
      return
    }
    const reply = this.#failed(error)
    if (this.#waits()) this.#last = reply
    else this.#finish(reply)
    this.#abort.abort(new Cancelled())
  }

  /**
   * Send a chunk; keep it while there is no request; leave it out if a run before this one sent it.
   *
   * @param {unknown} value
   */
  chunk(value) {
    if (this.#ended) throw new Cancelled()
    this.#seen.chunks++
    if (this.#seen.chunks <= this.#past.chunks) return
    const message = `{"chunk":${encode(value, `a chunk of ${this.op.name}`, this.#limit)}}`
    if (this.#waits()) return this.#keepChunk(message)
    try {
      this.#channel.chunk(message)
    } catch (error) {
      this.fail(error) // whoever sends so many awaits none, and would not see it
      throw new Cancelled()
    }
  }

  /** Wait while chunks have not been taken. */
  async room() {
    await this.#channel.room()
  }

  /**
   * Add an event to the next reply, unless there are a thousand, or a run before this one sent it.
   *
   * @param {string} event
   * @param {object} data
   */
  event(event, data) {
    this.#seen.events++
    if (this.#seen.events <= this.#past.events || this.#events.length >= EVENTS_MAX) return
    this.#events.push(encode({ event, data }, `an event of ${this.op.name}`, this.#limit))
  }

  /**
   * Make a system call, together with those that others of this run ask for at the same time.
   *
   * @param {string} name
   * @param {object} args
   * @returns {Promise<any>}
   */
  async call(name, args) {
    if (this.#ended || this.signal.aborted) throw new Cancelled()
    const call = new Call(encode({ name, args }, `the args of ${name}`, Math.floor(this.#limit / 2)))
    this.#wanted.push(call)
    this.#askSoon()
    return call.promise
  }

  async #main() {
    let reply
    try {
      this.#remember()
      const result = await this.op.run(this.op.arguments(this.invocation.args), new Context(this))
      reply = this.#succeeded(result)
    } catch (error) {
      if (this.#ended && isAbort(error)) return
      reply = this.#failed(error)
    }
    if (this.#waits()) this.#last ??= reply
    else if (!this.#ended) this.#finish(reply)
  }

  /** Tell whether the request has its reply, and this run waits for the next one. */
  #waits() {
    return this.#channel.answered && !this.#ended
  }

  /** @param {unknown} result */
  #succeeded(result) {
    const events = this.#events.reduce((sum, each) => sum + each.length, 0)
    const told = encode(result, `the result of ${this.op.name}`, this.#limit - events)
    return success(told, this.#events.splice(0))
  }

  /** @param {unknown} error */
  #failed(error) {
    return failure(error, this.op.name, this.#events.splice(0))
  }

  /**
   * Send the last reply. System calls that nobody asked the kernel for are given up.
   *
   * @param {string} reply
   */
  #finish(reply) {
    this.#ended = true
    this.#channel.finish(reply)
    this.#drop(this.#wanted.splice(0))
  }

  /** @param {Call[]} [more] calls that are given up with those that this run knows of */
  #stop(more = []) {
    this.#ended = true
    this.#abort.abort(new Cancelled())
    this.#drop([...more, ...this.#asked.splice(0), ...this.#wanted.splice(0)])
  }

  /** @param {Call[]} calls */
  #drop(calls) {
    for (const call of calls) {
      call.reject?.(new Cancelled())
    }
  }

  /** Ask for the system calls once everything of this run that is ready has had its turn. */
  #askSoon() {
    if (!this.#wanted.length || this.#asking || this.#channel.answered) return
    this.#asking = true
    setImmediate(() => this.#ask())
  }

  #ask() {
    this.#asking = false
    if (!this.#wanted.length || this.#ended || this.#channel.answered) return
    if (this.#past.done.length && !this.#recall()) return
    this.#suspend(this.#wanted.splice(0, this.#howMany()))
  }

  /** Settle the calls that a run before this one made; tell whether others are left to ask for. */
  #recall() {
    const known = this.#past.done
    this.#wanted = this.#wanted.filter((call) => {
      const digest = call.digest()
      const place = known.findIndex(([each]) => each === digest)
      if (place < 0) return true
      const [made] = known.splice(place, 1)
      this.#seen.done.push(made)
      call.settle(made[1])
      return false
    })
    if (!this.#wanted.length) return false
    if (!known.length) return true
    const diverged = 'stateless: run again, it made other system calls than before; they have to be the same'
    this.#end(new ModuleError('internal', `${this.op.name} is ${diverged}`))
    return false
  }

  /** Count the calls that fit into one reply. */
  #howMany() {
    let size = 0
    const fits = (/** @type {Call} */ call) => (size += Buffer.byteLength(call.text) + 1) <= this.#limit / 2 + 1
    const beyond = this.#wanted.slice(0, CALLS_MAX).findIndex((call) => !fits(call))
    return beyond < 0 ? CALLS_MAX : beyond
  }

  /**
   * Reply `pending`, and wait for the results, or end until the run begins again with them.
   *
   * @param {Call[]} calls
   */
  #suspend(calls) {
    this.#asked = calls
    const { stateless } = this.op
    let state
    try {
      state = stateless ? this.#pastAndAsked() : JSON.stringify({ run: this.#wait() })
    } catch (error) {
      this.#end(error)
      return
    }
    const texts = calls.map((call) => call.text)
    const reply = pending(texts, state, this.#events.splice(0))
    if (stateless) this.#ended = true
    this.#channel.finish(reply)
    if (stateless) this.#stop()
  }

  /** Keep this run until its results come. */
  #wait() {
    const name = this.#waiting.keep(this)
    const { deadline } = this.invocation
    if (deadline !== undefined) {
      const left = Math.min(deadline - performance.now() + GRACE, 2 ** 31 - 1)
      this.#expiry = setTimeout(() => this.#waiting.drop(name), left).unref()
    }
    return name
  }

  #pastAndAsked() {
    const chunks = Math.max(this.#seen.chunks, this.#past.chunks)
    const events = Math.max(this.#seen.events, this.#past.events)
    const asked = this.#asked.map((call) => call.digest())
    const state = encode({ done: this.#seen.done, asked, chunks, events }, 'state')
    const size = Buffer.byteLength(state)
    if (size <= this.#limit / 2) return state
    throw new ModuleError('internal', `${this.op.name}: its results so far take ${count(size)} bytes, too many`)
  }

  /** Read the past of a stateless run. */
  #remember() {
    const { resume } = this.invocation
    if (!resume) return
    const past = readState(resume.state)
    if (past.asked.length !== resume.results.length) throw wrongNumber(past.asked.length, resume.results.length)
    past.asked.forEach((digest, n) => past.done.push([digest, resume.results[n]]))
    this.#past = past
  }

  /** @param {unknown} error */
  #end(error) {
    this.#finish(this.#failed(error))
    this.#stop()
  }

  /** @param {string} message */
  #keepChunk(message) {
    const size = this.#between.reduce((sum, each) => sum + each.length, message.length)
    if (size > BETWEEN_MAX) {
      throw new ModuleError('internal', `${this.op.name}: too many chunks while it waits for system calls`)
    }
    this.#between.push(message)
  }
}

/**
 * Tell whether an error only says that something was told to stop.
 *
 * @param {unknown} error
 */
function isAbort(error) {
  return error instanceof Error && error.name === 'AbortError'
}

/**
 * @param {number} asked
 * @param {number} got
 */
function wrongNumber(asked, got) {
  return new ModuleError('bad_request', `resume.results: expected ${asked}, got ${got}`)
}
