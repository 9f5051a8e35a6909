package integration

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// situations holds the test of each row of the table in docs/operate/containers.md.
var situations = map[string]func(*testing.T){
	"A one-off container (`docker compose run`)":                                      TestE1OneOffsAndBuildStepsGetNoRequests,
	"A step of a classic `docker build`, whose container has the labels of the image": TestE1OneOffsAndBuildStepsGetNoRequests,
	"A container that must not get requests although it has the labels":               TestE1OneOffsAndBuildStepsGetNoRequests,
	"A paused container": TestPausedContainerGetsNoRequests,
	"A container whose health check has not passed or fails":                                                                   TestHealthGate,
	"No exposed port, or several, and no configured port":                                                                      TestPortLabelAndOption,
	"A network that the gateway cannot reach, beside one that it can":                                                          TestE9NetworksThatCannotBeReachedAreNotPreferred,
	"A container that uses the network of another container, which is replaced":                                                TestE5TheOwnerOfANetworkIsReplaced,
	"`rgate.address` is a local address, such as `127.0.0.1`":                                                                  TestE12LabelsCannotPublishTheGatewaysHost,
	"An engine on another machine":                                                                                             TestE4AddressesOfARemoteEngineBelongToStrangers,
	"Labels that no container can have, such as `app!=a`":                                                                      TestE15LabelsThatNoContainerHas,
	"A container that refuses connections, or whose address cannot be reached":                                                 TestE2AnAddressThatRefusedRests,
	"A container with HTTPS":                                                                                                   TestE3TheBackendSeesTheClientsHost,
	"A container that gets the address of another container, such as after `network disconnect`":                               TestE13AReusedAddressGetsNoOldConnections,
	"A container whose address or port leads to the gateway itself, such as the host's network with the port of the admin API": TestE12AConnectionNeverEndsAtTheGateway,
	"Active health checks (`proxy.health_checks.active`)":                                                                      TestE16ActiveChecksOfContainersAreRejected,
	"Passive health checks fail, or the maximum of requests in flight is reached":                                              TestF4ReportsShowWhatRoutingUses,
	"A container that is being stopped, such as with `docker stop -t 25`":                                                      TestE8StoppingContainersGetNoRequests,
	"A stop signal other than TERM, INT, QUIT, ABRT, KILL and RTMIN+3, such as WINCH or USR1":                                  TestE8StoppingContainersGetNoRequests,
	"A signal that reloads a process, such as HUP":                                                                             TestE8StoppingContainersGetNoRequests,
	"An engine that is unreachable":                                                                                            TestE6ASocketThatIsReplacedIsOpenedAgain,
	"An engine that is restarted, and restarts its containers with other addresses":                                            TestE7AddressesOfARestartedEngineAreNotTrusted,
	"Several engines, one of which is unreachable at the start":                                                                TestE11AnAbsentEngineDoesNotPreventReadiness,
	"Podman": TestE10EventsAndListsOfPodman,
}

// Every row of the table of situations has a test.
func TestSituations(t *testing.T) {
	content, err := os.ReadFile("../docs/operate/containers.md")
	must(t, "reading the page", err)
	_, table, found := strings.Cut(string(content), "<!-- situations -->\n")
	if !found {
		t.Fatal("the page has no table of situations")
	}
	var rows []string
	for line := range strings.Lines(table) {
		if !strings.HasPrefix(line, "|") {
			break
		}
		rows = append(rows, strings.TrimSpace(strings.Split(line, "|")[1]))
	}
	rows = rows[2:] // the head
	slices.Sort(rows)
	if want := slices.Sorted(maps.Keys(situations)); !slices.Equal(rows, want) {
		t.Errorf("the table has\n%q, but there are tests of\n%q", rows, want)
	}
}
