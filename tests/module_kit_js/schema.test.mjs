// Arguments held against schemas: node --test. The schemas and what cannot be one are those of authors.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Module } from '../../amplifier_module_js/index.js'
import { Op } from '../../amplifier_module_js/lib/op.js'
import { compile } from '../../amplifier_module_js/lib/schema.js'

const tree = { type: 'object', properties: { next: { $ref: '#/$defs/tree' }, n: { type: 'number' } } }
const either = { anyOf: [{ type: 'string' }, { type: 'object', properties: { a: { type: 'null' } }, required: ['a'] }] }
const one = { oneOf: [{ type: 'integer' }, { minimum: 5 }] }
const pair = { prefixItems: [{ type: 'string' }, { type: 'number' }], items: false }
const record = { propertyNames: { pattern: '^x' }, additionalProperties: { type: 'integer' }, properties: { xs: true } }

for (const [schema, value, flaw] of [
  [true, 1],
  [false, 1, 'v: there is no such field'],
  [{}, { a: [1] }],
  [{ type: 'null' }, null],
  [{ type: 'boolean' }, false],
  [{ type: ['string', 'null'] }, 1, 'v: expected string or null, got number'],
  [{ type: 'integer' }, 1.5, 'v: expected integer, got number'],
  [{ type: 'number' }, 2n ** 60n, 'v: expected number, got an integer beyond 2^53'],
  [{ type: 'object' }, [], 'v: expected object, got array'],
  [{ type: 'object' }, null, 'v: expected object, got null'],
  [{ required: ['toString'] }, {}, 'v.toString: expected a value, got nothing'],
  [{ required: ['a'], minimum: 1, minLength: 1, minItems: 1, pattern: 'x', items: false, properties: { a: false } }, true],
  [{ properties: { __proto__x: { type: 'string' }, constructor: { type: 'string' } } }, {}],
  [{ properties: { constructor: { type: 'string' } } }, { constructor: 1 }, 'v.constructor: expected string, got number'],
  [{ additionalProperties: false }, JSON.parse('{"__proto__":1}'), 'v.__proto__: there is no such field'],
  [{ properties: { a: true }, additionalProperties: { type: 'string' } }, { a: 1, b: 1 }, 'v.b: expected string, got number'],
  [{ enum: [1, { a: [1] }] }, { a: [1] }],
  [{ enum: [1, { a: [1] }] }, { a: [2] }, 'v: expected one of 1, {"a":[1]}'],
  [{ enum: [0] }, -0],
  [{ const: null }, 0, 'v: expected null'],
  [{ items: { type: 'string' } }, ['a', 1], 'v[1]: expected string, got number'],
  [pair, ['a', 1]],
  [pair, ['a', 'b'], 'v[1]: expected number, got string'],
  [pair, ['a', 1, 2], 'v[2]: there is no such field'],
  [record, { xs: 'any', x: 1 }],
  [record, { y: 1 }, 'the name v.y: expected /^x/u'],
  [{ minimum: 1 }, 0, 'v: expected at least 1'],
  [{ maximum: 1 }, 2, 'v: expected at most 1'],
  [{ exclusiveMinimum: 1 }, 1, 'v: expected more than 1'],
  [{ exclusiveMaximum: 1 }, 1, 'v: expected less than 1'],
  [{ minLength: 2 }, '😀', 'v: expected at least 2 characters'],
  [{ maxLength: 1 }, '😀'],
  [{ minItems: 1 }, [], 'v: expected at least 1 items'],
  [{ maxItems: 1 }, [1, 2], 'v: expected at most 1 items'],
  [{ pattern: '^a' }, 'ba', 'v: expected /^a/u'],
  [{ allOf: [{ minimum: 1 }, { maximum: 3 }] }, 4, 'v: expected at most 3'],
  [either, 'a'],
  [either, 1, 'v: expected string, got number, or expected object, got number'],
  [either, { a: 1 }, 'v.a: expected null, got number'],
  [one, 5.5],
  [one, 4],
  [one, 4.5, 'v: expected integer, got number, or expected at least 5'],
  [one, 6, 'v: expected one of several, got what fits more'],
  [{ not: { const: 1 } }, 2],
  [{ not: { const: 1 } }, 1, 'v: expected something else'],
  [{ $ref: '#/$defs/tree', $defs: { tree } }, { next: { next: { n: 'x' } } }, 'v.next.next.n: expected number, got string'],
  [{ properties: { a: { $ref: '#' } }, required: ['b'] }, { a: {}, b: 1 }, 'v.a.b: expected a value, got nothing'],
  [{ $defs: { 'a/b~c': { const: 1 } }, items: { $ref: '#/$defs/a~1b~0c' } }, [2], 'v[0]: expected 1'],
  [{ title: 'T', format: 'email', 'x-unit': 'm', default: 1, $schema: 'any' }, 'no email'],
]) {
  test(`${JSON.stringify(schema)} and ${String(value)}`, () => {
    const found = compile(schema, 'inputs')(value, 'v')
    assert.equal(found && `${found.path}: ${found.problem}`, flaw)
  })
}

for (const [schema, message] of [
  [1, 'inputs: expected a JSON Schema, got number'],
  [{ type: 'str' }, /^inputs.type: expected one of null, boolean, /],
  [{ type: [] }, /^inputs.type: expected one of null, boolean, /],
  [{ requird: [] }, 'inputs.requird: the kit does not check this keyword; give the module a compile() that does'],
  [{ properties: { a: { if: {} } } }, /^inputs.properties.a.if: the kit does not check this keyword/],
  [{ properties: [] }, 'inputs.properties: expected an object'],
  [{ required: 'a' }, 'inputs.required: expected a list of names'],
  [{ enum: 'a' }, 'inputs.enum: expected a list'],
  [{ minimum: '1' }, 'inputs.minimum: expected a number'],
  [{ pattern: 1 }, 'inputs.pattern: expected a pattern'],
  [{ prefixItems: {} }, 'inputs.prefixItems: expected a list'],
  [{ anyOf: [] }, 'inputs.anyOf: expected a list of schemas'],
  [{ $ref: 'other.json' }, "inputs.$ref: expected a reference into this schema, as '#/$defs/name'"],
  [{ $ref: '#/$defs/a' }, 'inputs.$ref: expected #/$defs/a to be there'],
]) {
  test(`no schema: ${JSON.stringify(schema)}`, () => {
    assert.throws(() => compile(schema, 'inputs'), { name: 'TypeError', message })
  })
}

const module = () => new Module('m')
const noop = () => 0

for (const [make, message] of [
  [() => new Module('No Name'), /^name: expected /],
  [() => new Module('m', { kind: 'tolo' }), /^kind: expected one of provider, tool, .*, got 'tolo'$/],
  [() => module().op('', noop), /^an operation's name: expected 1 to 256 characters, got $/],
  [() => module().op('x'.repeat(257), noop), /^an operation's name: expected/],
  [() => module().op(noop), /^an operation's name: expected/],
  [() => module().op('a', noop).op('a', noop), "'a': expected a name that no other operation has"],
  [() => module().op('a', {}), 'a: expected a function, got nothing'],
  [() => module().op('a', { inputs: true }, noop), 'a: inputs: expected a JSON Schema for an object, got boolean'],
  [() => module().op('a', { inputs: { type: 'x' } }, noop), /^a: inputs.type: expected one of/],
  [() => module().op('a', { outputs: 1 }, noop), 'a: outputs: expected a JSON Schema, got number'],
]) {
  test(`no module: ${make}`, () => assert.throws(make, { name: 'TypeError', message }))
}

test('another validator may hold the arguments', () => {
  const told = []
  const compile = (schema, name) => {
    told.push(name, schema)
    return ({ n }) => (n > 1 ? undefined : 'args.n: too small')
  }
  const op = new Op('count', { inputs: { uniqueItems: true }, description: 'Count.' }, noop, compile)
  assert.deepEqual(told, ['count', { description: 'Count.', uniqueItems: true }])
  assert.deepEqual(op.arguments({ n: 2 }), { n: 2 })
  assert.throws(() => op.arguments({ n: 1 }), { name: 'ModuleError', code: 'bad_request', message: 'args.n: too small' })
  assert.throws(() => op.arguments([]), { message: 'args: expected object, got array' })
})

test('a description tells what its author said', () => {
  const inputs = { type: 'object', properties: { text: { type: 'string' } } }
  const tool = new Module('m', { version: '1.0.0', capabilities: 'sys:mounts', limits: { concurrency: 1 } })
  tool.op('count', { description: 'Count.', inputs, outputs: { type: 'integer' } }, noop).op('on_event', noop)
  inputs.properties.text.type = 'number' // later changes are no matter
  assert.deepEqual(tool.describe(), {
    name: 'm',
    version: '1.0.0',
    kind: 'tool',
    capabilities: ['sys:mounts'],
    protocol: 1,
    inputs: {
      count: { description: 'Count.', type: 'object', properties: { text: { type: 'string' } } },
      on_event: { type: 'object', properties: { event: { type: 'object' } }, required: ['event'] },
    },
    outputs: { count: { type: 'integer' }, on_event: {} },
  })
  assert.deepEqual(tool.descriptor('https://example.com/m'), {
    name: 'm',
    kind: 'tool',
    version: '1.0.0',
    transport: { type: 'http', url: 'https://example.com/m' },
    capabilities: ['sys:mounts'],
    limits: { concurrency: 1 },
  })
})
