package bandwidth

import (
	"net/http"

	"github.com/rgate/rgate/policy"
)

// serve answers a request under the meter's path that has been let through.
func (m *Meter) serve(w http.ResponseWriter, r *http.Request) error {
	policy.WriteBody(w, r, http.StatusNotFound, "application/json", []byte(`{"error":"there is nothing here","status":404}`))
	return nil
}
