// A module over STDIO (protocol, section 3): a request a line on stdin, messages on stdout.
//
// Owns both descriptors, the lines, and the end of stdin.

import fs from 'node:fs'
import net from 'node:net'
import { inspect } from 'node:util'
import { Channel } from './channel.js'
import { ModuleError, complain } from './errors.js'
import { count } from './json.js'
import { failure, read, readCancel, readRequest } from './messages.js'
import { currentRun } from './run.js'
import { Service, stuckText } from './service.js'

const TO_FINISH = 500 // milliseconds after the end of stdin in which requests may finish
const TO_EXIT = 950 // milliseconds after the end of stdin at which the process ends, whatever still runs
const NEWLINE = 10
const HEAD = 1024 // bytes of a line that have its id
const ID = /^\s*\{\s*"id"\s*:\s*("[^"\\]{1,256}"|-?\d{1,15}(?![\d.eE]))/
const HEALTH = '{"ok":true,"result":{"status":"ok"}}'

/** @typedef {{ line: Buffer, size: number }} Line */

/** The lines of a stream of bytes. Of one that is too long only the beginning is kept. */
class Lines {
  #limit
  /** @type {Buffer[]} */
  #parts = []
  #size = 0

  /** @param {number} limit */
  constructor(limit) {
    this.#limit = limit
  }

  /**
   * Take bytes, and give each line that they end, with its size.
   *
   * @param {Buffer} data
   * @returns {Generator<Line>}
   */
  *feed(data) {
    let start = 0
    for (let end = data.indexOf(NEWLINE); end >= 0; end = data.indexOf(NEWLINE, start)) {
      this.#add(data.subarray(start, end))
      yield { line: this.#parts.length === 1 ? this.#parts[0] : Buffer.concat(this.#parts), size: this.#size }
      this.#parts = []
      this.#size = 0
      start = end + 1
    }
    this.#add(data.subarray(start))
  }

  /** @param {Buffer} part */
  #add(part) {
    if (this.#size <= this.#limit) this.#parts.push(part)
    else if (this.#parts.length > 1) this.#parts = [Buffer.concat(this.#parts, HEAD)]
    this.#size += part.length
  }
}

/** The channel of one request. */
class RequestChannel extends Channel {
  #start

  /**
   * @param {import('node:stream').Writable} stream
   * @param {number} limit
   * @param {string | number} id
   */
  constructor(stream, limit, id) {
    super(stream, limit)
    this.#start = `{"id":${JSON.stringify(id)},`
  }

  /** @param {string} message */
  _send(message) {
    this._write(`${this.#start}${message.slice(1)}\n`)
  }
}

class Server {
  #service
  #described
  #in
  #out
  /** @type {Map<string | number, RequestChannel>} */
  #requests = new Map()
  #idle = () => {}

  /**
   * @param {Service} service
   * @param {string} description
   */
  constructor(service, description) {
    this.#service = service
    this.#described = `{"ok":true,"result":${description}}`
    this.#in = openStdin()
    this.#out = openStdout()
  }

  /** Answer requests until the end of stdin, and for half a second more. Then what still runs is cancelled. */
  async serve() {
    process.on('uncaughtException', blame)
    process.on('unhandledRejection', blame)
    for (const each of [process.stdout, process.stderr]) each.on('error', () => {}) // nobody reads what is printed
    await Promise.race([this.#read(), this.#untilBroken()])
    await this.#end()
  }

  async #read() {
    const lines = new Lines(this.#service.limit)
    try {
      for await (const data of this.#in) {
        for (const { line, size } of lines.feed(data)) this.#take(line, size)
      }
    } catch {
      // a stdin that cannot be read has ended
    }
  }

  /** Wait until nobody reads stdout any more. */
  #untilBroken() {
    return new Promise((resolve) => void this.#out.on('error', resolve))
  }

  /**
   * @param {Buffer} line
   * @param {number} size
   */
  #take(line, size) {
    try {
      if (size > this.#service.limit) {
        const limit = count(this.#service.limit)
        throw new ModuleError('bad_request', `expected a message of at most ${limit} bytes, got ${count(size)}`)
      }
      if (isBlank(line)) return
      this.#answer(readRequest(read(line, 'request')), size)
    } catch (error) {
      this.#refuse(line, error)
    }
  }

  /**
   * @param {import('./messages.js').Request} request
   * @param {number} size
   */
  #answer({ id, method, params }, size) {
    if (id === undefined) {
      if (method === 'cancel') this.#cancel(params)
    } else if (method === 'invoke') this.#invoke(id, params, size)
    else if (method === 'health') this.#say(id, HEALTH)
    else if (method === 'describe') this.#say(id, this.#described)
    else {
      const told = `there is no method '${method.slice(0, 200).toWellFormed()}'`
      this.#say(id, failure(new ModuleError('unsupported_op', told), ''))
    }
  }

  /**
   * @param {string | number} id
   * @param {unknown} params
   * @param {number} size
   */
  #invoke(id, params, size) {
    if (this.#requests.has(id)) {
      complain(`${this.#service.name}: two requests have the id '${id}'`)
      return
    }
    const channel = new RequestChannel(this.#out, this.#service.limit, id)
    this.#requests.set(id, channel)
    channel.after(() => {
      this.#requests.delete(id)
      if (!this.#requests.size) this.#idle()
    })
    this.#service.invoke(params ?? {}, channel, size)
  }

  /** @param {unknown} params */
  #cancel(params) {
    try {
      this.#requests.get(readCancel(params ?? {}))?.cancel()
    } catch (error) {
      complain(`${this.#service.name}: cancel: ${error instanceof Error ? error.message : error}`)
    }
  }

  /**
   * Answer a line that is no request, if it says which one it is.
   *
   * @param {Buffer} line
   * @param {unknown} error
   */
  #refuse(line, error) {
    const named = ID.exec(line.subarray(0, HEAD).toString())
    if (named) this.#out.write(`{"id":${named[1]},${failure(error, '').slice(1)}\n`)
    else complain(`${this.#service.name}: stdin: ${error instanceof Error ? error.message : error}`)
  }

  /**
   * @param {string | number} id
   * @param {string} reply
   */
  #say(id, reply) {
    this.#out.write(`{"id":${JSON.stringify(id)},${reply.slice(1)}\n`)
  }

  /** Let requests finish, cancel the rest, and see to it that the process ends within a second. */
  async #end() {
    const exit = () => process.exit(0)
    setTimeout(exit, TO_EXIT).unref()
    this.#in.destroy()
    if (this.#requests.size && this.#out.writable) {
      await new Promise((resolve) => {
        this.#idle = () => resolve(undefined)
        setTimeout(resolve, TO_FINISH).unref()
        this.#out.once('error', resolve)
      })
    }
    for (const channel of [...this.#requests.values()]) channel.cancel()
    await new Promise((resolve) => void this.#out.end(resolve))
  }
}

/**
 * Serve a module over STDIO until the end of stdin.
 *
 * @param {string} name
 * @param {Map<string, import('./op.js').Op>} ops
 * @param {import('../index.js').Limits} limits
 * @param {string} description
 */
export function serve(name, ops, limits, description) {
  const stuck = () => {
    fs.writeSync(2, `${stuckText(name)}\n`)
    process.exit(1) // the kernel starts another one
  }
  return new Server(new Service(name, ops, limits, stuck), description).serve()
}

/** @param {Buffer} line */
function isBlank(line) {
  return line.every((each) => each === 32 || each === 13 || each === 9)
}

/**
 * Say of an error that nothing caught to which invocation it belongs: that one fails, and the process lives. Of any other,
 * stderr gets the stack.
 *
 * @param {unknown} error
 */
function blame(error) {
  const run = currentRun()
  if (run) run.fail(error)
  else complain(`outside of any operation: ${inspect(error)}`)
}

/**
 * Give the real stdout of this process. What is printed from now on, by a child process too, goes to stderr.
 *
 * @returns {import('node:stream').Writable}
 */
function openStdout() {
  const fd = isAPipe(1) && !fs.fstatSync(2).isFile() ? move(1, 'a', '/dev/fd/2') : 1
  if (fd === 1) process.stdout.write = process.stderr.write.bind(process.stderr)
  const stream = isAPipe(fd) || isASocket(fd) ? new net.Socket({ fd, readable: false }) : fs.createWriteStream('', { fd })
  return stream.setMaxListeners(0)
}

/**
 * Give the real stdin of this process. Whoever else reads it finds it empty from now on.
 *
 * @returns {import('node:stream').Readable}
 */
function openStdin() {
  const fd = isAPipe(0) ? move(0, 'r', '/dev/null') : 0
  return fd === 0 ? process.stdin : new net.Socket({ fd, writable: false })
}

/**
 * Give a pipe another descriptor, and its old one to another file. Node has no dup2, but the descriptor that is opened
 * next is the lowest one that is free. Where a pipe cannot be opened by its name, its descriptor stays.
 *
 * A file is not opened again: both openings would have a place of their own, and write over each other.
 *
 * @param {number} fd
 * @param {'a' | 'r'} flags
 * @param {string} instead
 */
function move(fd, flags, instead) {
  try {
    fs.closeSync(fs.openSync(instead, flags))
    const moved = fs.openSync(`/dev/fd/${fd}`, flags)
    fs.closeSync(fd)
    fs.openSync(instead, flags)
    return moved
  } catch {
    return fd
  }
}

/** @param {number} fd */
function isAPipe(fd) {
  return fs.fstatSync(fd).isFIFO()
}

/** @param {number} fd */
function isASocket(fd) {
  return fs.fstatSync(fd).isSocket()
}
