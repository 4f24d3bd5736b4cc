// What a module answers, on any transport.
//
// Owns which run an `invoke` becomes, and how many are in progress. How requests come and replies go is the transports'.

import { ModuleError } from './errors.js'
import { MESSAGE_BYTES } from './json.js'
import { failure, readInvoke } from './messages.js'
import { Run, Waiting } from './run.js'

const IN_PROGRESS_MAX = 16_384 // requests
const HELD_MAX = 8 // times the largest message: what all requests in progress may hold
const STUCK = 1000 // milliseconds in which a function whose caller gave up may still end

/**
 * @typedef {import('./channel.js').Channel} Channel
 * @typedef {import('./op.js').Op} Op
 */

export class Service {
  name
  limit
  #ops
  #places
  #waiting = new Waiting()
  #inProgress = 0
  #held = 0

  /**
   * @param {string} name
   * @param {Map<string, Op>} ops
   * @param {import('../index.js').Limits} limits of the descriptor
   * @param {() => void} stuck is called when no function can run any more
   */
  constructor(name, ops, limits, stuck) {
    this.name = name
    this.limit = limits.message_bytes ?? MESSAGE_BYTES
    this.#ops = ops
    this.#places = new Places(limits.concurrency ?? Infinity, stuck)
  }

  /**
   * Begin, or go on with, the invocation that these parameters tell. Whatever comes of it goes to the channel.
   *
   * @param {unknown} params
   * @param {Channel} channel
   * @param {number} size of the message, in bytes
   */
  invoke(params, channel, size) {
    let name = ''
    try {
      this.#admit(channel, size)
      const invocation = readInvoke(params)
      name = invocation.op
      this.#begin(this.#find(name), invocation, channel)
    } catch (error) {
      channel.finish(failure(error, name))
    }
  }

  /**
   * @param {Channel} channel
   * @param {number} size
   */
  #admit(channel, size) {
    if (this.#inProgress >= IN_PROGRESS_MAX || this.#held > HELD_MAX * this.limit) {
      throw new ModuleError('busy', `${this.name} has too many requests in progress`)
    }
    this.#inProgress++
    this.#held += size
    channel.after(() => {
      this.#inProgress--
      this.#held -= size
    })
  }

  /** @param {string} name */
  #find(name) {
    const op = this.#ops.get(name)
    if (op) return op
    const known = [...this.#ops.keys()].join(', ') || 'none'
    const told = `${this.name} has no operation '${name.slice(0, 200).toWellFormed()}'; it has ${known}`
    throw new ModuleError('unsupported_op', told.slice(0, 1000))
  }

  /**
   * @param {Op} op
   * @param {import('./messages.js').Invocation} invocation
   * @param {Channel} channel
   */
  #begin(op, invocation, channel) {
    const { resume } = invocation
    const waiting = resume && !op.stateless ? this.#waiting.take(resume) : undefined
    const run = waiting ?? new Run(op, invocation, channel, this.limit, this.#waiting)
    if (waiting) channel.stop = () => waiting.giveUp()
    this.#places.take(channel, run, () => {
      if (waiting && resume) waiting.resume(invocation, resume, channel)
      else run.start()
    })
  }
}

/** The places of `limits.concurrency`: each request has one until its reply, a cancelled one until its function ends. */
class Places {
  #free
  #count
  #stuck
  #held = 0 // by functions whose callers gave up a while ago
  /** @type {(() => void)[]} */
  #queue = []

  /**
   * @param {number} count
   * @param {() => void} stuck is called when functions whose callers gave up have held every place for a second
   */
  constructor(count, stuck) {
    this.#free = this.#count = count
    this.#stuck = stuck
  }

  /**
   * Begin a request as soon as a place is free. One that is cancelled before never begins.
   *
   * @param {Channel} channel
   * @param {Run} run
   * @param {() => void} begin
   */
  take(channel, run, begin) {
    this.#queue.push(() => {
      if (channel.answered) return
      this.#free--
      channel.after(() => void this.#release(channel, run))
      begin()
    })
    this.#next()
  }

  #next() {
    while (this.#free > 0 && this.#queue.length) this.#queue.shift()?.()
  }

  /**
   * @param {Channel} channel
   * @param {Run} run
   */
  async #release(channel, run) {
    if (channel.cancelled && this.#count !== Infinity) await this.#settled(run)
    this.#free++
    this.#next()
  }

  /** @param {Run} run */
  async #settled(run) {
    let late = false
    const timer = setTimeout(() => {
      late = true
      if (++this.#held >= this.#count) this.#stuck()
    }, STUCK).unref()
    await run.settled
    clearTimeout(timer)
    if (late) this.#held--
  }
}

/**
 * Say what a person can do about functions that hold every place.
 *
 * @param {string} name
 */
export function stuckText(name) {
  return `${name}: every place is held by a function whose caller gave up; give context.signal to what takes long`
}
