// JSON Schemas (draft 2020-12) as checks of values.
//
// Owns the keywords that this kit checks. Any other keyword that would check something is refused when the schema is
// compiled: a schema that is only half checked would promise what nobody holds.

import { isDeepStrictEqual } from 'node:util'

/**
 * @typedef {{ path: string, problem: string }} Flaw
 * @typedef {(value: any, path: string) => Flaw | undefined} Check
 * @typedef {{ schema: Record<string, unknown>, where: string, build: (part: unknown, where: string) => Check,
 *   root: unknown }} Place
 */

const TYPES = ['null', 'boolean', 'integer', 'number', 'string', 'array', 'object']
const SAYS_NOTHING = new Set(
  ['$schema', '$id', '$comment', '$defs', 'title', 'description', 'default', 'examples', 'deprecated'].concat(
    ['readOnly', 'writeOnly', 'format', 'contentEncoding', 'contentMediaType', 'contentSchema'],
  ),
)
const isObject = (/** @type {unknown} */ value) => kindOf(value) === 'object'

/**
 * Make a check of a schema. It gives the first flaw of a value, with its path. Throws `TypeError` with one line that
 * names what is wrong in the schema.
 *
 * @param {unknown} root
 * @param {string} name
 * @returns {Check}
 */
export function compile(root, name) {
  /** @type {Map<unknown, Check>} */
  const known = new Map() // a part may refer to itself
  /** @type {Place['build']} */
  const build = (part, where) => {
    if (part === true) return () => undefined
    if (part === false) return (_, path) => ({ path, problem: 'there is no such field' })
    if (!isObject(part)) throw new TypeError(`${where}: expected a JSON Schema, got ${kindOf(part)}`)
    const before = known.get(part)
    if (before) return before
    /** @type {Check[]} */
    const checks = []
    const check = inTurn(checks)
    known.set(part, check)
    checks.push(...keywords(/** @type {Record<string, unknown>} */ (part), where, build, root))
    return check
  }
  return build(root, name)
}

/**
 * Name the type of a value as JSON does.
 *
 * @param {unknown} value
 */
export function kindOf(value) {
  if (value === null) return 'null'
  if (Array.isArray(value)) return 'array'
  return typeof value === 'bigint' ? 'an integer beyond 2^53' : value === undefined ? 'nothing' : typeof value
}

/**
 * @param {Record<string, unknown>} schema
 * @param {string} where
 * @param {Place['build']} build
 * @param {unknown} root
 */
function keywords(schema, where, build, root) {
  const checks = []
  for (const [keyword, told] of Object.entries(schema)) {
    if (SAYS_NOTHING.has(keyword) || keyword.startsWith('x-')) continue
    const here = `${where}.${keyword}`
    if (!Object.hasOwn(KEYWORDS, keyword)) {
      throw new TypeError(`${here}: the kit does not check this keyword; give the module a compile() that does`)
    }
    const check = KEYWORDS[keyword](told, { schema, where: here, build, root })
    keyword === 'type' ? checks.unshift(check) : checks.push(check) // the other flaws follow from a wrong type
  }
  return checks
}

/**
 * @param {Check[]} checks
 * @returns {Check}
 */
function inTurn(checks) {
  return (value, path) => {
    for (const check of checks) {
      const flaw = check(value, path)
      if (flaw) return flaw
    }
  }
}

/**
 * @param {boolean} condition
 * @param {string} where
 * @param {string} expected
 */
function demand(condition, where, expected) {
  if (!condition) throw new TypeError(`${where}: expected ${expected}`)
}

/** @param {unknown} value */
const isText = (value) => typeof value === 'string'
/** @param {unknown} told */
const isTexts = (told) => Array.isArray(told) && told.every(isText)

/** @type {Record<string, (value: any) => boolean>} */
const IS = {
  integer: Number.isInteger,
  number: (value) => typeof value === 'number',
  array: Array.isArray,
  object: isObject,
  null: (value) => value === null,
  boolean: (value) => typeof value === 'boolean',
  string: isText,
}

/**
 * Make a keyword that compares a measure of a value, which is undefined for values that it says nothing of.
 *
 * @param {(value: any) => number | undefined} measure
 * @param {(measured: number, bound: number) => boolean} fits
 * @param {string} expected
 * @param {string} [unit]
 * @returns {(bound: any, place: Place) => Check}
 */
function bound(measure, fits, expected, unit = '') {
  return (limit, { where }) => {
    demand(typeof limit === 'number', where, 'a number')
    return (value, path) => {
      const measured = measure(value)
      if (measured !== undefined && !fits(measured, limit)) return { path, problem: `expected ${expected} ${limit}${unit}` }
    }
  }
}

/** @param {unknown} value */
const asNumber = (value) => (typeof value === 'number' ? value : undefined)
/** @param {unknown} value */
const asLength = (value) => (typeof value === 'string' ? characters(value) : undefined)
/** @param {unknown} value */
const asCount = (value) => (Array.isArray(value) ? value.length : undefined)
/** @type {(a: number, b: number) => boolean} */
const atLeast = (measured, limit) => measured >= limit
/** @type {(a: number, b: number) => boolean} */
const atMost = (measured, limit) => measured <= limit

/** @param {string} text */
function characters(text) {
  let found = 0
  for (const _ of text) found++
  return found
}

/** @type {Record<string, (told: any, place: Place) => Check>} */
export const KEYWORDS = {
  type(told, { where }) {
    /** @type {string[]} */
    const names = Array.isArray(told) ? told : [told]
    demand(names.length > 0 && names.every((name) => TYPES.includes(name)), where, `one of ${TYPES.join(', ')}`)
    const problem = `expected ${names.join(' or ')}, got `
    return (value, path) =>
      names.some((name) => IS[name](value)) ? undefined : { path, problem: `${problem}${kindOf(value)}` }
  },

  enum(told, { where }) {
    demand(Array.isArray(told), where, 'a list')
    const problem = `expected one of ${told.map((/** @type {unknown} */ each) => JSON.stringify(each)).join(', ')}`
    return (value, path) =>
      told.some((/** @type {unknown} */ each) => same(each, value)) ? undefined : { path, problem: problem.slice(0, 1000) }
  },

  const(told) {
    const problem = `expected ${JSON.stringify(told)}`.slice(0, 1000)
    return (value, path) => (same(told, value) ? undefined : { path, problem })
  },

  required(told, { where }) {
    demand(isTexts(told), where, 'a list of names')
    return (value, path) => {
      if (!isObject(value)) return
      const missing = told.find((/** @type {string} */ name) => !Object.hasOwn(value, name))
      if (missing !== undefined) return { path: `${path}.${missing}`, problem: 'expected a value, got nothing' }
    }
  },

  properties(told, { where, build }) {
    demand(isObject(told), where, 'an object')
    const checks = Object.entries(told).map(([name, part]) => ({ name, check: build(part, `${where}.${name}`) }))
    return (value, path) => {
      if (!isObject(value)) return
      for (const { name, check } of checks) {
        const flaw = Object.hasOwn(value, name) ? check(value[name], `${path}.${name}`) : undefined
        if (flaw) return flaw
      }
    }
  },

  additionalProperties(told, { schema, where, build }) {
    const check = build(told, where)
    const known = new Set(Object.keys(schema.properties ?? {}))
    return (value, path) => {
      if (!isObject(value)) return
      for (const name of Object.keys(value)) {
        const flaw = known.has(name) ? undefined : check(value[name], `${path}.${name.slice(0, 200)}`)
        if (flaw) return flaw
      }
    }
  },

  propertyNames(told, { where, build }) {
    const check = build(told, where)
    return (value, path) => {
      for (const name of isObject(value) ? Object.keys(value) : []) {
        const flaw = check(name, `the name ${path}.${name.slice(0, 200)}`)
        if (flaw) return flaw
      }
    }
  },

  items(told, { schema, where, build }) {
    const check = build(told, where)
    const start = Array.isArray(schema.prefixItems) ? schema.prefixItems.length : 0
    return (value, path) => {
      for (let n = start; Array.isArray(value) && n < value.length; n++) {
        const flaw = check(value[n], `${path}[${n}]`)
        if (flaw) return flaw
      }
    }
  },

  prefixItems(told, { where, build }) {
    demand(Array.isArray(told), where, 'a list')
    const checks = told.map((/** @type {unknown} */ part, /** @type {number} */ n) => build(part, `${where}[${n}]`))
    return (value, path) => {
      for (let n = 0; Array.isArray(value) && n < Math.min(checks.length, value.length); n++) {
        const flaw = checks[n](value[n], `${path}[${n}]`)
        if (flaw) return flaw
      }
    }
  },

  allOf: (told, place) => inTurn(alternatives(told, place)),

  anyOf(told, place) {
    const checks = alternatives(told, place)
    return (value, path) => {
      const flaws = []
      for (const check of checks) {
        const flaw = check(value, path)
        if (!flaw) return
        flaws.push(flaw)
      }
      return closest(flaws)
    }
  },

  oneOf(told, place) {
    const checks = alternatives(told, place)
    return (value, path) => {
      const flaws = checks.flatMap((check) => check(value, path) ?? [])
      const fitting = checks.length - flaws.length
      if (fitting !== 1) return fitting ? { path, problem: 'expected one of several, got what fits more' } : closest(flaws)
    }
  },

  not(told, { where, build }) {
    const check = build(told, where)
    return (value, path) => (check(value, path) ? undefined : { path, problem: 'expected something else' })
  },

  pattern(told, { where }) {
    demand(isText(told), where, 'a pattern')
    const pattern = new RegExp(told, 'u')
    return (value, path) =>
      isText(value) && !pattern.test(value) ? { path, problem: `expected ${pattern}`.slice(0, 1000) } : undefined
  },

  $ref(told, { where, build, root }) {
    demand(isText(told) && /^#(\/|$)/.test(told), where, "a reference into this schema, as '#/$defs/name'")
    let part = /** @type {any} */ (root)
    for (const name of told.split('/').slice(1).map(unescape)) {
      demand(typeof part === 'object' && part !== null && Object.hasOwn(part, name), where, `${told} to be there`)
      part = part[name]
    }
    return build(part, where)
  },

  minimum: bound(asNumber, atLeast, 'at least'),
  maximum: bound(asNumber, atMost, 'at most'),
  exclusiveMinimum: bound(asNumber, (value, limit) => value > limit, 'more than'),
  exclusiveMaximum: bound(asNumber, (value, limit) => value < limit, 'less than'),
  minLength: bound(asLength, atLeast, 'at least', ' characters'),
  maxLength: bound(asLength, atMost, 'at most', ' characters'),
  minItems: bound(asCount, atLeast, 'at least', ' items'),
  maxItems: bound(asCount, atMost, 'at most', ' items'),
}

/** @param {string} part of a JSON pointer in a URL */
function unescape(part) {
  return decodeURIComponent(part).replaceAll('~1', '/').replaceAll('~0', '~')
}

/**
 * @param {unknown} told
 * @param {Place} place
 * @returns {Check[]}
 */
function alternatives(told, { where, build }) {
  demand(Array.isArray(told) && told.length > 0, where, 'a list of schemas')
  return /** @type {unknown[]} */ (told).map((part, n) => build(part, `${where}[${n}]`))
}

/**
 * Give the flaw of the alternative that the value came closest to; of several that are equally far, all.
 *
 * @param {Flaw[]} flaws
 * @returns {Flaw}
 */
function closest(flaws) {
  const longest = Math.max(...flaws.map(({ path }) => path.length))
  const deepest = flaws.filter(({ path }) => path.length === longest)
  const problems = [...new Set(deepest.map(({ problem }) => problem))]
  return { path: deepest[0].path, problem: problems.join(', or ').slice(0, 1000) }
}

/**
 * @param {unknown} one
 * @param {unknown} other
 */
function same(one, other) {
  return one === other || (typeof one === 'object' && isDeepStrictEqual(one, other))
}
