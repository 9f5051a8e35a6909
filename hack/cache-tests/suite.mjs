// Runs the tests of the package http-cache-tests against a gateway with a cache.
import { spawn } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'

import { getResults, runTests } from 'http-cache-tests/client/runner.mjs'
import tests from 'http-cache-tests/tests/index.mjs'
import fetch from 'node-fetch'

// What the suite requires and the gateway does otherwise, by the beginnings of ids.
const deviations = {
  'age-parse-': 'An invalid `Age` is ignored, and of several the first counts, as in RFC 9111, section 5.1; the suite follows RFC 7234',
  'stale-close-': 'The response is the gateway\'s 503, as required, and not a stale one; the suite takes every response that is not the backend\'s for a stored one',
  'headers-store-Set-Cookie': 'Responses with cookies are stored only if they have `public` or `s-maxage`',
  'headers-store-Transfer-Encoding': 'Go\'s HTTP client refuses the response, whose transfer coding does not exist',
  '304-etag-update-response-Set-Cookie': 'Responses with cookies are stored only if they have `public` or `s-maxage`',
  '304-etag-update-response-Content-Type': 'A 304 does not change what the stored body is, as RFC 9111, section 3.2, allows'
}

const freePort = () => new Promise((resolve) => {
  const server = createServer().listen(0, '127.0.0.1', () => {
    const { port } = server.address()
    server.close(() => resolve(port))
  })
})

const [origin, gateway, admin] = [await freePort(), await freePort(), await freePort()]
writeFileSync('rgate.yaml', `listen: "127.0.0.1:${gateway}"
admin: localhost:${admin}
routes: [{path_prefix: /, backend: origin, cache: true}]
backends: [{name: origin, dial: ["localhost:${origin}"]}]
`)
const children = [
  spawn(process.execPath, ['node_modules/http-cache-tests/server/server.mjs'],
    { env: { ...process.env, npm_config_protocol: 'http', npm_config_port: origin, npm_config_pidfile: 'server.pid' }, stdio: 'ignore' }),
  spawn(process.argv[2], ['-c', 'rgate.yaml'], { env: { ...process.env, XDG_DATA_HOME: '.', XDG_CONFIG_HOME: '.' }, stdio: 'ignore' })
]
process.on('exit', () => children.forEach((child) => child.kill()))

const base = `http://localhost:${gateway}`
for (let tries = 100; ; tries--) {
  const up = await fetch(base + '/').then((response) => response.status !== 503, () => false)
  if (up) break
  if (tries === 0) throw new Error('the gateway does not respond')
  await sleep(100)
}
await runTests(tests, fetch, false, base)

const results = getResults()
const counts = {}
const explained = new Set()
const failures = []
for (const suite of tests) {
  for (const test of suite.tests) {
    if (test.browser_only) continue
    const kind = test.kind ?? 'required'
    const passed = results[test.id] === true
    counts[kind] ??= { passed: 0, all: 0 }
    counts[kind].all++
    if (passed) {
      counts[kind].passed++
    } else if (kind === 'required') {
      const prefix = Object.keys(deviations).find((start) => test.id.startsWith(start))
      if (prefix) explained.add(prefix)
      else failures.push(`${test.id}: ${test.name}: ${[results[test.id]].flat().join(': ')}`)
    }
  }
}
console.log('| Kind of test | Passed |\n|---|---|')
for (const [kind, { passed, all }] of Object.entries(counts)) console.log(`| ${kind} | ${passed} of ${all} |`)
for (const prefix of Object.keys(deviations)) {
  if (!explained.has(prefix)) failures.push(`${prefix}: passes, so that it needs no explanation`)
}
if (failures.length > 0) {
  console.error(failures.join('\n'))
  process.exit(1)
}
process.exit(0)
