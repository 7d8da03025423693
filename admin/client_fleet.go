package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
)

func clusterPath(cluster, rest string) string {
	return "/api/v1/clusters/" + url.PathEscape(cluster) + "/" + rest
}

// Order has a task begun, or says with Order.DryRun what would begin. Order.Cluster must be set.
func (c *Client) Order(ctx context.Context, o Order) (Task, error) {
	var t Task
	err := c.call(ctx, request{method: http.MethodPost, path: clusterPath(o.Cluster, url.PathEscape(o.Verb)), body: o, within: orderTimeout + clientTimeout}, &t)
	return t, err
}

// Tasks are those under way and the last that ended, oldest first.
func (c *Client) Tasks(ctx context.Context, cluster string) ([]Task, error) {
	var list []Task
	err := c.call(ctx, request{method: http.MethodGet, path: clusterPath(cluster, "tasks")}, &list)
	return list, err
}

// Task is one of them.
func (c *Client) Task(ctx context.Context, cluster string, id uint64) (Task, error) {
	var t Task
	err := c.call(ctx, request{method: http.MethodGet, path: clusterPath(cluster, "tasks/"+strconv.FormatUint(id, 10))}, &t)
	return t, err
}

// TaskLog waits for lines behind the place; there may be none after some time.
func (c *Client) TaskLog(ctx context.Context, p TaskPlace) (TaskLog, error) {
	q := url.Values{"from": {strconv.Itoa(p.From)}, "log": {p.Log}}
	var log TaskLog
	path := clusterPath(p.Cluster, "tasks/"+strconv.FormatUint(p.ID, 10)+"/log") + "?" + q.Encode()
	err := c.call(ctx, request{method: http.MethodGet, path: path, within: pollTimeout + clientTimeout}, &log)
	return log, err
}

// Evidence is why the leader did what it did.
func (c *Client) Evidence(ctx context.Context, cluster string) (Evidence, error) {
	var e Evidence
	err := c.call(ctx, request{method: http.MethodGet, path: clusterPath(cluster, "evidence")}, &e)
	return e, err
}

// Meta is what the fleet has agreed on about the cluster.
func (c *Client) Meta(ctx context.Context, cluster string) (Meta, error) {
	var m Meta
	err := c.call(ctx, request{method: http.MethodGet, path: clusterPath(cluster, "meta")}, &m)
	return m, err
}

// Members are the fleet's; why says that no leader could be asked.
func (c *Client) Members(ctx context.Context) (list []Member, why string, err error) {
	var answer memberList
	err = c.call(ctx, request{method: http.MethodGet, path: "/api/v1/members"}, &answer)
	return answer.Members, answer.Why, err
}

// Voter changes who votes.
func (c *Client) Voter(ctx context.Context, change VoterChange) error {
	return c.call(ctx, request{method: http.MethodPost, path: "/api/v1/voters", body: change, within: orderTimeout + clientTimeout}, new(VoterChange))
}

// Adopt takes a cluster over from a fleet that is no more.
func (c *Client) Adopt(ctx context.Context, a Adoption) (Adopted, error) {
	var got Adopted
	err := c.call(ctx, request{method: http.MethodPost, path: clusterPath(a.Cluster, "adopt"), body: a, within: adoptTimeout + clientTimeout}, &got)
	return got, err
}

// Process is what the cstproxy that answers says of itself.
func (c *Client) Process(ctx context.Context) (Process, error) {
	var p Process
	err := c.call(ctx, request{method: http.MethodGet, path: "/api/v1/status"}, &p)
	return p, err
}

// Log is the log of the member that answers, from the line with that number on.
func (c *Client) Log(ctx context.Context, from uint64) (LogLines, error) {
	var lines LogLines
	path := "/api/v1/log?from=" + strconv.FormatUint(from, 10)
	err := c.call(ctx, request{method: http.MethodGet, path: path, within: pollTimeout + clientTimeout}, &lines)
	return lines, err
}

// Init prepares a cluster's hosts; line gets what is done and found, until the end. It takes as long
// as it takes: ctx ends it.
func (c *Client) Init(ctx context.Context, cluster string, line func(string)) error {
	resp, err := c.send(ctx, request{method: http.MethodPost, path: clusterPath(cluster, "init")})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer)) // what there is of it says why
		return refusal(resp.StatusCode, body)
	}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		var l initLine
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			return fmt.Errorf("read the admin server's answer: %w: not ours: %w", ErrUnreachable, err)
		}
		switch {
		case l.Done:
			return nil
		case l.Error != "":
			return errors.New(l.Error)
		}
		line(l.Line)
	}
	return fmt.Errorf("the admin server's answer broke off: %w: %w", ErrUnreachable, errors.Join(lines.Err(), io.ErrUnexpectedEOF))
}
