// An orchestrator: think, call tools, observe, until there is an answer. A module over STDIO JSON, in plain Node 18.
//
// It never waits, and it stores no run except its span. It answers `pending` with the calls that the kernel shall make and
// with `state`, which is all that it needs later. The kernel makes the calls and invokes it again with the results and
// the state; `state.phase` says how to continue.

const capabilities = [
  'sys:mounts',
  'sys:describe:/mnt/tools/*',
  'sys:invoke:/mnt/tools/*',
  'sys:invoke:/mnt/providers/*',
  'sys:invoke:/mnt/context/*',
  'sys:context.get',
  'sys:context.set_fragment:transcript',
]
const run = {
  description: 'Works towards a goal with whatever tools are mounted.',
  type: 'object',
  required: ['goal'],
  properties: {
    goal: { type: 'string' },
    max_steps: { type: 'integer', default: 20, description: 'How often the model may be asked.' },
    compact_above: { type: 'integer', default: 60000, description: 'Characters of transcript to compact at.' },
  },
}
const answer = { type: 'object', required: ['answer'], properties: { answer: { type: 'string' } } }
const description = {
  name: 'loop',
  version: '0.1.0',
  kind: 'orchestrator',
  capabilities,
  inputs: { run },
  outputs: { run: answer },
}

const SYSTEM = `You are an agent: you work towards a goal by calling tools, and then say in plain text what came of it.
What a tool refuses as forbidden stays forbidden: do not try it again, find another way or say so.`
const OBSERVATION = 8000 // characters of a tool's result that the model gets to see

const failure = (code, message) => ({ ok: false, error: { code, message } })
const call = (name, args) => ({ name, args })
const invoke = (path, op, args, more) => call('invoke', { path, op, args, ...more })
const save = (transcript) => call('context.set_fragment', { key: 'transcript', value: transcript })

// Continue in `phase` with the results of these calls; if there are none, continue at once.
const pending = (state, phase, syscalls) =>
  syscalls.length ? { pending: { syscalls, state: { ...state, phase } } } : phases[phase](state, [])

const phases = {
  start: (state) => pending(state, 'meet', [call('mounts', {}), call('context.get', {})]),

  // Find the provider, the compactor and the tools, and the transcript of this session so far.
  meet(state, [mounts, { fragments }]) {
    const paths = (kind) => mounts.filter((mount) => mount.kind === kind).map((mount) => mount.path)
    const [provider] = paths('provider')
    const [compactor] = paths('context')
    if (!provider) return failure('bad_request', 'no provider is mounted')
    const before = fragments.transcript ?? [{ role: 'system', content: SYSTEM }]
    const transcript = [...before, { role: 'user', content: state.goal }]
    const known = { ...state, provider, compactor, transcript, toolPaths: paths('tool') }
    return pending(known, 'learn', known.toolPaths.map((path) => call('describe', { path })))
  },

  // Make each op of each tool a function that the model may call, with the JSON Schema of the op.
  learn(state, descriptions) {
    const [tools, functions] = [{}, []]
    for (const [n, { name: module, inputs, flawed }] of descriptions.entries()) {
      for (const [op, schema] of Object.entries(inputs)) {
        if (flawed?.[op]) continue
        const name = `${module}_${op}`.replace(/[^\w-]/g, '_')
        tools[name] = { path: state.toolPaths[n], op }
        const parameters = { type: 'object', ...schema }
        functions.push({ type: 'function', function: { name, description: schema.description, parameters } })
      }
    }
    return phases.think({ ...state, tools, functions })
  },

  // With `stream`, the kernel passes the provider's chunks to the caller of this module.
  think(state) {
    if (state.step === state.max_steps) return failure('step_limit', `there is no answer after ${state.step} steps`)
    const args = { messages: state.transcript, tools: state.functions }
    const ask = invoke(state.provider, 'complete', args, { stream: true })
    return pending({ ...state, step: state.step + 1 }, 'act', [ask])
  },

  // The calls of one turn run at the same time. A call that is wrong becomes an observation, like a call that fails.
  act(state, [{ message }]) {
    const transcript = [...state.transcript, message]
    const wanted = (message.tool_calls ?? []).map((each) => understand(each, state.tools))
    if (!wanted.length) return pending({ ...state, answer: message.content ?? '' }, 'finish', [save(transcript)])
    const calls = wanted.filter((each) => each.call).map((each) => each.call)
    return pending({ ...state, transcript, wanted }, 'observe', calls)
  },

  observe(state, results) {
    const transcript = [...state.transcript]
    for (const { id, problem } of state.wanted) {
      transcript.push({ role: 'tool', tool_call_id: id, content: observation(problem ?? results.shift()) })
    }
    return pending({ ...state, transcript, wanted: undefined }, 'compact', [save(transcript)])
  },

  compact(state) {
    const size = JSON.stringify(state.transcript).length
    if (!state.compactor || size <= state.compact_above) return phases.think(state)
    return pending(state, 'reload', [invoke(state.compactor, 'compact', { fragment: 'transcript' })])
  },

  reload: (state) => pending(state, 'resume', [call('context.get', {})]),
  resume: (state, [{ fragments }]) => phases.think({ ...state, transcript: fragments.transcript }),
  finish: (state) => ({ ok: true, result: { answer: state.answer, steps: state.step } }),
}

function understand({ id, function: { name, arguments: text } }, tools) {
  if (!Object.hasOwn(tools, name)) return { id, problem: failure('bad_request', `there is no tool ${name}`) }
  try {
    const args = JSON.parse(text || '{}')
    return { id, call: invoke(tools[name].path, tools[name].op, args) } // the kernel checks that args is an object
  } catch (error) {
    return { id, problem: failure('bad_request', `the arguments are not JSON: ${error.message}`) }
  }
}

function observation({ ok, result, error }) {
  const text = ok ? JSON.stringify(result) : `error: ${error.code}: ${error.message}`
  return text.length <= OBSERVATION ? text : `${text.slice(0, OBSERVATION)} … (${text.length} characters in all)`
}

function invoked(params) {
  if (params.op !== 'run') return failure('unsupported_op', `loop does not know '${params.op}'`)
  if (typeof params.args.goal !== 'string') return failure('bad_request', 'args.goal: expected a string')
  const { session_id: session, span_id: span, resume } = params
  if (resume && (runs.get(session) ?? span) !== span) return failure('cancelled', 'a newer run of this session goes on')
  runs.set(session, span)
  const answered = step(params)
  if (!answered.pending) runs.delete(session)
  return answered
}

// Of two runs in a session only the newer continues: each would save a transcript without the messages of the other. To
// refuse the newer one would be wrong: a module that waits in `pending` does not learn that its run was cancelled.
const runs = new Map() // session: the span of its newest run

function step({ args, resume }) {
  if (!resume) return phases.start({ max_steps: 20, compact_above: 60000, ...args, step: 0 })
  const { state, results } = resume
  if (state.phase === 'observe') return phases.observe(state, results) // the failure of a tool is an observation
  const failed = results.find((result) => !result.ok) // any other failure ends the run
  return failed ?? phases[state.phase](state, results.map(({ result }) => result))
}

function reply({ method, params }) {
  if (method === 'health') return { ok: true, result: { status: 'ok' } }
  if (method === 'describe') return { ok: true, result: description }
  try {
    return invoked(params)
  } catch (error) {
    runs.delete(params.session_id)
    return failure('internal', String(error)) // for example, a provider returned no message
  }
}

let unfinished = ''
process.stdin.setEncoding('utf8') // it keeps back an incomplete character
process.stdin.on('data', (text) => {
  const lines = (unfinished + text).split('\n') // node:readline would also split at \r, U+2028 and U+2029
  unfinished = lines.pop()
  for (const line of lines) {
    const request = JSON.parse(line)
    if (request.method === 'cancel') continue // every request was answered at once
    process.stdout.write(`${JSON.stringify({ id: request.id, ...reply(request) })}\n`)
  }
})
