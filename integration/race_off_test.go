//go:build !race

package integration

// raceDetector is true if the tests and gateways run with the race detector.
const raceDetector = false
