package operations

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/rgate/rgate/internal/status"
)

func TestAdminReportsUnknownGateways(t *testing.T) {
	check := func(query, want string) {
		t.Helper()
		err := adminGateway{}.serve(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, adminPath+"/health"+query, nil))
		if err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %s", query, err, want)
		}
	}
	check("", "no gateway is running")
	check("?gateway=edge", "no gateway is running")
	for _, name := range []string{"edge", "api"} {
		defer status.Services.Publish(name, func() any { return nil })()
	}
	check("?gateway=egde", `unknown gateway "egde" (did you mean "edge"?): use api, edge`)
}
