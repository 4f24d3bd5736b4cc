// A module over HTTP (protocol, section 4), as a listener for `node:http`.
//
// Owns the mapping of requests and replies to HTTP. Sockets, TLS and processes are the server's.

import { Channel } from './channel.js'
import { ModuleError, complain } from './errors.js'
import { count } from './json.js'
import { failure, read } from './messages.js'
import { Service, stuckText } from './service.js'

const HEALTH = '{"status":"ok"}'
const TO_SEND = 1000 // milliseconds in which the rest of a body that is too large is read and forgotten

/**
 * @typedef {import('node:http').IncomingMessage} IncomingMessage
 * @typedef {import('node:http').ServerResponse} ServerResponse
 */

/** The channel of one request: a reply as it is, or, with chunks before it, as a stream of lines. */
class ResponseChannel extends Channel {
  #response
  #streams = false

  /**
   * @param {ServerResponse} response
   * @param {number} limit
   */
  constructor(response, limit) {
    super(response, limit)
    this.#response = response
  }

  /**
   * @param {string} message
   * @param {boolean} last
   */
  _send(message, last) {
    if (last && !this.#streams) {
      whole(this.#response, 200, message)
      return
    }
    if (!this.#streams) this.#response.writeHead(200, { 'content-type': 'application/x-ndjson' })
    this.#streams = true
    this._write(`${message}\n`)
    if (last) this.#response.end()
  }
}

/**
 * Make a listener. Each path that ends in `/health`, `/describe` or `/invoke` is answered.
 *
 * @param {string} name
 * @param {Map<string, import('./op.js').Op>} ops
 * @param {import('../index.js').Limits} limits
 * @param {string} description
 * @returns {(request: IncomingMessage, response: ServerResponse) => void}
 */
export function handler(name, ops, limits, description) {
  const service = new Service(name, ops, limits, () => complain(stuckText(name)))
  /** @type {Map<string, string>} */
  const bare = new Map([['health', HEALTH], ['describe', description]])
  return (request, response) => {
    response.on('error', () => {}) // 'close' follows
    const id = request.headers['x-request-id']
    if (id !== undefined) response.setHeader('x-request-id', id)
    answer(service, bare, request, response)
  }
}

/**
 * @param {Service} service
 * @param {Map<string, string>} bare
 * @param {IncomingMessage} request
 * @param {ServerResponse} response
 */
async function answer(service, bare, request, response) {
  const method = (request.url ?? '').split('?')[0].split('/').at(-1) ?? ''
  const told = bare.get(method)
  if (told === undefined && method !== 'invoke') {
    refuse(response, 404, 'unsupported_op', `there is no '${method.slice(0, 200)}'`)
  } else if (request.method !== 'POST') refuse(response, 405, 'unsupported_op', 'expected POST')
  else {
    const body = await bodyOf(request, service.limit)
    if (body === 'too large') {
      refuse(response, 413, 'bad_request', `expected at most ${count(service.limit)} bytes`)
      request.resume() // a connection that is reset at once may lose the response
      setTimeout(() => request.destroy(), TO_SEND).unref()
    } else if (body && told !== undefined) whole(response, 200, told)
    else if (body) invoke(service, body, response)
  }
}

/**
 * Read the body; nothing if the caller is gone before its end.
 *
 * @param {IncomingMessage} request
 * @param {number} limit
 * @returns {Promise<Buffer | 'too large' | undefined>}
 */
async function bodyOf(request, limit) {
  if (Number(request.headers['content-length'] ?? 0) > limit) return 'too large'
  const parts = []
  let size = 0
  try {
    for await (const part of request.iterator({ destroyOnReturn: false })) {
      size += part.length
      if (size > limit) return 'too large'
      parts.push(part)
    }
  } catch {
    return undefined
  }
  return Buffer.concat(parts)
}

/**
 * @param {Service} service
 * @param {Buffer} body
 * @param {ServerResponse} response
 */
function invoke(service, body, response) {
  const channel = new ResponseChannel(response, service.limit)
  response.once('close', () => channel.cancel())
  try {
    service.invoke(body.length ? read(body, 'params') : {}, channel, body.length)
  } catch (error) {
    channel.finish(failure(error, ''))
  }
}

/**
 * @param {ServerResponse} response
 * @param {number} status
 * @param {string} code
 * @param {string} problem
 */
function refuse(response, status, code, problem) {
  whole(response, status, failure(new ModuleError(code, problem), ''))
}

/**
 * @param {ServerResponse} response
 * @param {number} status
 * @param {string} body
 */
function whole(response, status, body) {
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) })
  response.end(body)
}
