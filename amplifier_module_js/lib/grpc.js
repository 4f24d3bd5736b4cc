// A module as a gRPC server: the service `amplifier.v1.Module`, and the standard health.
//
// Owns the mapping of calls to requests and replies, and the bytes of their messages. The library is the author's, and so
// are ports, TLS and interceptors.

import { Channel } from './channel.js'
import { complain } from './errors.js'
import { failure, read } from './messages.js'
import { Service, stuckText } from './service.js'

const SERVICE = 'amplifier.v1.Module'
const FRAME = 64 // bytes of protobuf around a message
const FIELD_1 = 10 // the key of its bytes
const SERVING = Buffer.from([8, 1])
const SERVICE_UNKNOWN = Buffer.from([8, 3])
const NOT_FOUND = { code: 5, details: 'there is no such service' }

/**
 * @typedef {import('node:stream').Writable & { request: Buffer }} Call
 * @typedef {(error: object | null, message?: string | Buffer) => void} Reply
 * @typedef {{ addService(definition: any, implementation: any): void }} Server
 */

/** The channel of one call. Where its response is no stream, nobody wants chunks. */
class CallChannel extends Channel {
  #call
  #reply

  /**
   * @param {Call} call
   * @param {Reply | undefined} reply
   * @param {number} limit
   */
  constructor(call, reply, limit) {
    super(call, limit)
    this.#call = call
    this.#reply = reply
  }

  /**
   * @param {string} message
   * @param {boolean} last
   */
  _send(message, last) {
    if (!this.#reply) this._write(message)
    if (last && this.#reply) this.#reply(null, message)
    else if (last) this.#call.end()
  }
}

/**
 * Make a server that is not bound to a port.
 *
 * @template {Server} Made
 * @param {{ Server: new (options?: any) => Made }} library
 * @param {object} options of the server
 * @param {string} name
 * @param {Map<string, import('./op.js').Op>} ops
 * @param {import('../index.js').Limits} limits
 * @param {string} description
 */
export function makeServer(library, options, name, ops, limits, description) {
  const service = new Service(name, ops, limits, () => complain(stuckText(name)))
  const server = new library.Server({ 'grpc.max_receive_message_length': service.limit + FRAME, ...options })
  server.addService(methods(SERVICE, { Describe: false, Invoke: false, InvokeStream: true }, encode), {
    Describe: (/** @type {Call} */ _, /** @type {Reply} */ reply) => reply(null, `{"ok":true,"result":${description}}`),
    Invoke: (/** @type {Call} */ call, /** @type {Reply} */ reply) => invoke(service, call, reply),
    InvokeStream: (/** @type {Call} */ call) => invoke(service, call),
  })
  server.addService(methods('grpc.health.v1.Health', { Check: false, Watch: true }, same), {
    Check: (/** @type {Call} */ { request }, /** @type {Reply} */ reply) => {
      if (isKnown(request)) reply(null, SERVING)
      else reply(NOT_FOUND)
    },
    Watch: (/** @type {Call} */ call) => void call.write(isKnown(call.request) ? SERVING : SERVICE_UNKNOWN), // it stays
  })
  return server
}

/**
 * Define the methods of a service by their names, each with whether its response is a stream.
 *
 * @param {string} service
 * @param {Record<string, boolean>} streams
 * @param {(message: any) => Buffer} responseSerialize
 */
function methods(service, streams, responseSerialize) {
  const client = { requestSerialize: same, responseDeserialize: same } // of which there is none
  const all = { ...client, requestStream: false, requestDeserialize: decode, responseSerialize }
  const define = (/** @type {string} */ name) => [name, { ...all, path: `/${service}/${name}`, responseStream: streams[name] }]
  return Object.fromEntries(Object.keys(streams).map(define))
}

/**
 * @param {Service} service
 * @param {Call} call
 * @param {Reply} [reply]
 */
function invoke(service, call, reply) {
  const channel = new CallChannel(call, reply, service.limit)
  call.on('error', () => {}) // it is cancelled, too
  call.once('cancelled', () => channel.cancel())
  const params = call.request
  try {
    service.invoke(params.length ? read(params, 'params') : {}, channel, params.length)
  } catch (error) {
    channel.finish(failure(error, ''))
  }
}

/** @param {Buffer} service */
const isKnown = (service) => ['', SERVICE].includes(service.toString())

/** @param {Buffer} message */
const same = (message) => message

/**
 * Encode a message whose field 1 is a text.
 *
 * @param {string} text
 */
function encode(text) {
  const value = Buffer.from(text)
  const head = [FIELD_1]
  let size = value.length
  for (; size > 127; size >>>= 7) head.push((size & 127) | 128)
  return Buffer.concat([Buffer.from([...head, size]), value])
}

/**
 * Give field 1 of a message, empty if it is left out. Fields that this kit does not know are passed over.
 *
 * @param {Buffer} message
 */
function decode(message) {
  let at = 0
  let value = message.subarray(0, 0)
  const take = (/** @type {number} */ size) => {
    if (at + size > message.length) throw new RangeError('the message is cut')
    return message.subarray(at, (at += size))
  }
  const number = () => {
    for (let sum = 0, unit = 1; ; unit *= 128) {
      const [byte] = take(1)
      sum += (byte & 127) * unit
      if (byte < 128) return sum
    }
  }
  const readers = [number, () => take(8), () => take(number()), undefined, undefined, () => take(4)]
  while (at < message.length) {
    const key = number()
    const field = readers[key % 8]?.()
    if (field === undefined) throw new RangeError('a field of the message has an unknown type')
    if (key === FIELD_1) value = /** @type {Buffer} */ (field)
  }
  return value
}
