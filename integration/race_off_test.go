//go:build !race

package integration

// raceDetector tells whether the tests, and so the gateways, have it.
const raceDetector = false
