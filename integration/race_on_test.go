//go:build race

package integration

// raceDetector is whether the tests, and so the gateways, run with the race detector.
const raceDetector = true
