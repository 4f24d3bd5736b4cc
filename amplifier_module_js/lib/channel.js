// Where the messages of one request go, until its reply.
//
// Owns that a request has one reply, and none but its reply after a cancel, and that chunks do not pile up. How messages
// are framed belongs to the transports.

import { ModuleError } from './errors.js'
import { count } from './json.js'

const CANCELLED = '{"ok":false,"error":{"code":"cancelled","message":"the caller gave up"}}'

/** @typedef {import('node:stream').Writable} Writable */

/** @abstract */
export class Channel {
  answered = false
  cancelled = false
  /** Called when the caller gives up. */
  stop = () => {}
  #stream
  #limit
  #waiting = 0 // bytes that were not taken yet
  /** @type {Promise<void> | undefined} */
  #full
  #wake = () => {}
  /** @type {(() => void)[]} */
  #after = []

  /**
   * @param {Writable} stream
   * @param {number} limit of the bytes that may wait in it for this request
   */
  constructor(stream, limit) {
    this.#stream = stream
    this.#limit = limit
  }

  /**
   * Send one chunk. False: the request has its reply, so that nobody waits for chunks.
   *
   * @param {string} message
   */
  chunk(message) {
    if (this.answered) return false
    if (this.#waiting > this.#limit) {
      throw new ModuleError('internal', `${count(this.#waiting)} bytes of chunks wait: await context.chunk(…)`)
    }
    this._send(message, false)
    return true
  }

  /**
   * Send the reply. False: the request has one.
   *
   * @param {string} message
   */
  finish(message) {
    if (this.answered) return false
    this.answered = true
    this._send(message, true)
    this.#wake()
    for (const done of this.#after.splice(0)) done()
    return true
  }

  /** Answer at once that the request was cancelled, and stop what works on it. */
  cancel() {
    if (this.answered) return
    this.cancelled = true
    this.finish(CANCELLED)
    this.stop()
  }

  /**
   * Call a function once the request has its reply.
   *
   * @param {() => void} done
   */
  after(done) {
    this.#after.push(done)
  }

  /** Let everything else have its turn, and wait while what was sent has not been taken. */
  async room() {
    await new Promise(setImmediate)
    await this.#full
  }

  /**
   * Send one message, as the transport frames it, with `_write`.
   *
   * @abstract
   * @param {string} _message
   * @param {boolean} _last
   */
  _send(_message, _last) {}

  /** @param {string} text */
  _write(text) {
    const size = Buffer.byteLength(text)
    this.#waiting += size
    const taken = () => void (this.#waiting -= size)
    const full = !this.#stream.write(text, taken) && !this.#stream.destroyed
    if (full) this.#full ??= this.#untilTaken()
  }

  /** @returns {Promise<void>} */
  #untilTaken() {
    const stream = this.#stream
    return new Promise((resolve) => {
      const wake = () => {
        this.#full = undefined
        stream.off('drain', wake).off('close', wake)
        resolve()
      }
      this.#wake = wake
      stream.on('drain', wake).on('close', wake)
    })
  }
}
