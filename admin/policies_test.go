package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

func (c *council) Policies(string) (Policies, error) {
	return Policies{Version: 3, Policies: []Policy{{Key: "gray_after", Value: json.RawMessage(`"3s"`), File: json.RawMessage(`"5s"`), Changed: true}},
		Changes: []PolicyChange{{Version: 3, By: "dba"}}}, c.fail
}

func (c *council) ChangePolicies(_ context.Context, o PolicyOrder) (Policies, error) {
	return Policies{Version: o.Version + 1, Changes: []PolicyChange{{By: o.By, Set: o.Set, Unset: o.Unset}}}, c.fail
}

func TestPoliciesAreReadByAnybodyAndChangedWithTheToken(t *testing.T) {
	h := sitting(&council{})
	for target, want := range map[string]string{
		"/api/v1/clusters/cluster01/policies": `{"version":3,"policies":[{"key":"gray_after","value":"3s","file":"5s","changed":true}],"changes":[{"version":3,`,
		"/api/v1/clusters/cluster01/meta":     `"policies":{"version":3,"policies":[{"key":"gray_after","value":"3s","file":"5s","changed":true}]}}`,
	} {
		if code, body := ask(t, h, http.MethodGet, target); code != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d %s", target, code, body)
		}
	}
	const change = "/api/v1/clusters/cluster01/policies"
	for _, v := range []struct {
		target, body string
		code         int
		says         string
	}{
		{change + "?token=T", `{"version":3,"set":{"gray_after":"3s","max_repairs":5,"nofailover":true},"unset":["on_crash"],"by":"dba"}`, 200,
			`"version":4,"policies":null,"changes":[{"version":0,"at":"0001-01-01T00:00:00Z","by":"dba","set":{"gray_after":"3s","max_repairs":5,"nofailover":true},"unset":["on_crash"]}]`},
		{change + "?token=T", `{"version":3,"set":{"gray_after":"3s"}}`, 200, `"by":"HTTP from `},
		{change + "?token=T", ``, 400, "name no policy"},
		{change + "?token=T", `{"set":{"gray_after":}}`, 400, "malformed"},
		{change, `{"set":{"gray_after":"3s"}}`, 403, "token"},
		{"/api/v1/clusters/none/policies?token=T", `{"set":{"gray_after":"3s"}}`, 404, "unknown"},
	} {
		if code, body := post(h, v.target, v.body); code != v.code || !strings.Contains(body, v.says) {
			t.Errorf("%s %s: %d %s, want %d %s", v.target, v.body, code, body, v.code, v.says)
		}
	}
	h = sitting(&council{fail: fmt.Errorf("gray_after is 1ms: %w", ErrInvalid)})
	if code, body := post(h, change+"?token=T", `{"set":{"gray_after":"1ms"}}`); code != 400 || !strings.Contains(body, "gray_after is 1ms") {
		t.Errorf("a value that cannot be obeyed: %d %s", code, body)
	}
}
