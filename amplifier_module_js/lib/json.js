// JSON as the protocol has it: nothing is rounded when it is read, and nothing is lost when it is written.
//
// Owns both directions and their bounds. An integer that a number cannot hold is a BigInt on this side.

import { randomUUID } from 'node:crypto'
import { types } from 'node:util'
import { ModuleError } from './errors.js'

/** The largest message in either direction, in bytes, unless `limits.message_bytes` says otherwise. */
export const MESSAGE_BYTES = 32 * 1024 * 1024

const DEPTH_MAX = 200 // levels, as many as the kernel takes
const DIGITS_MAX = 4300 // of an integer, as many as Python takes: the time to read it grows faster than they do
const SAFE_DIGITS = 15 // each integer with as many is exact
const ESCAPED_SURROGATE = /\\u[dD][89a-fA-F]/
const SUSPECT = /null|\{\}/ // what stands where JSON.stringify found no word, among other things
const LONE_SURROGATE = /\\ud[89a-f]/ // as JSON.stringify writes it, and no other character
const [QUOTE, BACKSLASH, MINUS, ZERO, NINE] = ['"', '\\', '-', '0', '9'].map((each) => each.charCodeAt(0))
const [OPEN, CLOSE, OPEN_LIST, CLOSE_LIST] = ['{', '}', '[', ']'].map((each) => each.charCodeAt(0))
const IN_NUMBERS = new Set([...'.eE+-'].map((each) => each.charCodeAt(0)))
const EXPONENT = 'e'.charCodeAt(0)
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** @typedef {{ start: number, end: number }} Place */

/**
 * Read JSON. Throws an `Error` whose message says what is wrong with it.
 *
 * @param {Buffer} bytes
 * @returns {unknown}
 */
export function decode(bytes) {
  const text = toText(bytes)
  if (text.startsWith('\ufeff')) throw new SyntaxError('a byte order mark is not JSON')
  const large = findLarge(text)
  const value = large.length ? withBigInts(text, large) : JSON.parse(text)
  if (ESCAPED_SURROGATE.test(text)) refuseSurrogates(value)
  return value
}

/** @param {Buffer} bytes */
function toText(bytes) {
  try {
    return utf8.decode(bytes)
  } catch {
    throw new SyntaxError('expected UTF-8')
  }
}

/**
 * Find the integers that a number cannot hold. Throws if the nesting is too deep, or a number out of range.
 *
 * @param {string} text
 */
function findLarge(text) {
  /** @type {Place[]} */
  const large = []
  let depth = 0
  for (let at = 0; at < text.length; at++) {
    const each = text.charCodeAt(at)
    if (each === QUOTE) at = endOfString(text, at)
    else if (each === OPEN || each === OPEN_LIST) {
      if (++depth > DEPTH_MAX) throw new SyntaxError(`expected at most ${DEPTH_MAX} levels`)
    } else if (each === CLOSE || each === CLOSE_LIST) depth--
    else if (each >= ZERO && each <= NINE) {
      const end = endOfNumber(text, at)
      const start = text.charCodeAt(at - 1) === MINUS ? at - 1 : at
      if (mayBeLarge(text, at, end) && isLarge(text.slice(start, end))) large.push({ start, end })
      at = end - 1
    }
  }
  return large
}

/**
 * Give the place of the quote that ends a string.
 *
 * @param {string} text
 * @param {number} start
 */
function endOfString(text, start) {
  for (let end = text.indexOf('"', start + 1); end >= 0; end = text.indexOf('"', end + 1)) {
    let escapes = 0
    while (text.charCodeAt(end - 1 - escapes) === BACKSLASH) escapes++
    if (escapes % 2 === 0) return end
  }
  return text.length
}

/**
 * @param {string} text
 * @param {number} start
 */
function endOfNumber(text, start) {
  let end = start
  for (let each = ZERO; (each >= ZERO && each <= NINE) || IN_NUMBERS.has(each); each = text.charCodeAt(end)) end++
  return end
}

/**
 * Tell whether a number is worth a look: one of few digits is exact, unless it has an exponent.
 *
 * @param {string} text
 * @param {number} start
 * @param {number} end
 */
function mayBeLarge(text, start, end) {
  if (end - start > SAFE_DIGITS) return true
  for (let at = start + 1; at < end - 1; at++) if ((text.charCodeAt(at) | 32) === EXPONENT) return true
  return false
}

/** @param {string} number */
function isLarge(number) {
  if (/^-?\d+$/.test(number)) {
    if (number.length > DIGITS_MAX) throw new SyntaxError(`expected an integer of at most ${DIGITS_MAX} digits`)
    return number.length > SAFE_DIGITS && !Number.isSafeInteger(Number(number))
  }
  const value = Number(number) // NaN: it is none, and JSON.parse says so
  if (Math.abs(value) === Infinity) throw new SyntaxError(`expected a number below 1.8e308, got ${number.slice(0, 40)}`)
  return false
}

/**
 * @param {string} text
 * @param {Place[]} large
 */
function withBigInts(text, large) {
  JSON.parse(text) // or a number where none may be would become a string where one may
  const mark = randomUUID() // no caller knows it
  const parts = []
  let from = 0
  for (const { start, end } of large) {
    parts.push(text.slice(from, start), `"${mark}${text.slice(start, end)}"`)
    from = end
  }
  return JSON.parse([...parts, text.slice(from)].join(''), (_, value) =>
    typeof value === 'string' && value.startsWith(mark) ? BigInt(value.slice(mark.length)) : value,
  )
}

/** @param {unknown} value */
function refuseSurrogates(value) {
  if (typeof value === 'string') {
    if (!value.isWellFormed()) throw new SyntaxError('a lone surrogate is not JSON')
  } else if (typeof value === 'object' && value !== null) {
    for (const [key, each] of Object.entries(value)) {
      refuseSurrogates(key)
      refuseSurrogates(each)
    }
  }
}

/**
 * Write a value as JSON. `undefined` is `null`. Throws `ModuleError` `internal` if JSON has no word for it, or if it is
 * larger than `limit` bytes.
 *
 * @param {unknown} value
 * @param {string} what
 */
export function encode(value, what, limit = MESSAGE_BYTES) {
  let text
  try {
    text = stringify(value)
  } catch (error) {
    throw new ModuleError('internal', `${what}: expected JSON: ${error instanceof Error ? error.message : error}`)
  }
  const size = text.length > limit / 3 ? Buffer.byteLength(text) : 0
  if (size > limit) throw new ModuleError('internal', `${what}: expected at most ${count(limit)} bytes, got ${count(size)}`)
  return text
}

/** @param {number} number */
export function count(number) {
  return number.toLocaleString('en-US')
}

/**
 * @param {unknown} value
 * @returns {string}
 */
function stringify(value) {
  if (value === undefined) return 'null'
  let text
  try {
    text = JSON.stringify(value)
  } catch {
    return strictly(value) // it has a BigInt, or what says here again that it cannot be written
  }
  if (text === undefined || LONE_SURROGATE.test(text)) return strictly(value)
  return SUSPECT.test(text) && !isPlain(value) ? strictly(value) : text
}

/**
 * Tell whether a value has only parts that JSON has words for, as far as that is quickly seen.
 *
 * @param {any} value
 * @returns {boolean}
 */
function isPlain(value) {
  if (typeof value === 'number') return Number.isFinite(value)
  if (typeof value !== 'object' || value === null) return typeof value !== 'function'
  if (Array.isArray(value)) return value.every(isPlain)
  const kind = Object.getPrototypeOf(value)
  if (kind !== Object.prototype && kind !== null) return false
  for (const name in value) if (!isPlain(value[name])) return false
  return true
}

/**
 * Write a value with a look at each of its parts, which takes longer.
 *
 * @param {unknown} value
 * @returns {string}
 */
function strictly(value) {
  const mark = randomUUID()
  /** @type {Map<unknown, string>} */
  const paths = new Map()
  const text = JSON.stringify(value, function (key, each) {
    const before = paths.get(this)
    const path = before === undefined ? '' : `${before}${Array.isArray(this) ? `[${key}]` : `.${key}`}`
    const problem = key.isWellFormed() ? problemOf(each) : 'a lone surrogate'
    if (problem) throw new TypeError(`${path ? `${path.slice(1, 200).toWellFormed()}: ` : ''}${problem} is not JSON`)
    if (typeof each === 'object') paths.set(each, path)
    return typeof each === 'bigint' ? `${mark}${each}` : each
  })
  if (text === undefined) throw new TypeError(`a ${typeof value} is not JSON`)
  return text.replaceAll(new RegExp(`"${mark}(-?\\d+)"`, 'g'), '$1')
}

/**
 * @param {unknown} value
 * @returns {string | undefined}
 */
function problemOf(value) {
  if (typeof value === 'number' && !Number.isFinite(value)) return String(value)
  if (typeof value === 'string' && !value.isWellFormed()) return 'a lone surrogate'
  if (types.isPromise(value)) return 'a Promise, which may lack an await,'
  const unfit = types.isMap(value) || types.isSet(value) || types.isRegExp(value) || types.isNativeError(value)
  return unfit || types.isAnyArrayBuffer(value) ? `a ${/** @type {object} */ (value).constructor.name}` : undefined
}
