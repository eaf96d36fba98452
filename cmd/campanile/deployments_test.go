package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
)

const deploymentsDir = "../../deployments"

// outsideMetrics are those of an alert that no stage serves: Prometheus's own, the node exporter's, and what `campanile reconcile` leaves
// in a file for it.
var outsideMetrics = []string{"up", "node_filesystem_avail_bytes", "node_filesystem_size_bytes"} //nolint:gochecknoglobals // a table

type alertRules struct {
	Groups []struct {
		Rules []struct {
			Alert       string            `yaml:"alert"`
			Expr        string            `yaml:"expr"`
			Labels      map[string]string `yaml:"labels"`
			Annotations map[string]string `yaml:"annotations"`
		} `yaml:"rules"`
	} `yaml:"groups"`
}

func readAlerts(t *testing.T) alertRules {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(deploymentsDir, "prometheus", "alerts.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var rules alertRules
	if err := yaml.Unmarshal(text, &rules); err != nil {
		t.Fatal(err)
	}
	return rules
}

var metricName = regexp.MustCompile(`\b(campanile|node|up)(_[a-z0-9_]+)?\b`) //nolint:gochecknoglobals // a table

// known reports whether a metric of that name is registered: a registry takes no second one that differs. A name that was asked for
// can never be registered afterwards.
func known(r *prometheus.Registry, name string) bool {
	probe := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: "probe", ConstLabels: prometheus.Labels{"probe": "probe"}})
	if r.Register(probe) != nil {
		return true
	}
	r.Unregister(probe)
	return false
}

func gathered(t *testing.T, r *prometheus.Registry, name string) bool {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return true
		}
	}
	return false
}

// TestAlertsAskForMetricsThatAreThere: an alert on a metric that nobody serves would be silent for ever.
func TestAlertsAskForMetricsThatAreThere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.process(t)
	registerReconcile(p.registry)
	if _, err := openCertificates("none.crt", "none.key", p.logger, p.registry); err == nil { // its metrics are there all the same
		t.Fatal("a certificate without files was opened")
	}
	eventually(t, time.Minute, "every part has begun", func() bool {
		return len(p.health.snapshot()) == 0 && gathered(t, p.registry, "campanile_janitor_running")
	})
	served := func(name string) bool {
		base := strings.TrimSuffix(name, "_bucket")
		return slices.Contains(outsideMetrics, name) || known(p.registry, base)
	}
	for _, group := range readAlerts(t).Groups {
		for _, rule := range group.Rules {
			expr := regexp.MustCompile(`"[^"]*"`).ReplaceAllString(rule.Expr, `""`)
			for _, name := range metricName.FindAllString(expr, -1) {
				if !served(name) {
					t.Errorf("%s asks for %s, which nobody serves", rule.Alert, name)
				}
			}
		}
	}
	if known(p.registry, "campanile_no_such_metric") {
		t.Error("this test takes any name for a metric")
	}
}

// TestAlertsNameASectionThatIsThere: each alert says how urgent it is, and leads to what to do.
func TestAlertsNameASectionThatIsThere(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	anchors := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(string(page), -1) {
		anchor := strings.ReplaceAll(strings.ToLower(m[1]), " ", "-")
		anchors[regexp.MustCompile(`[^a-z0-9_-]`).ReplaceAllString(anchor, "")] = true
	}
	for _, group := range readAlerts(t).Groups {
		for _, rule := range group.Rules {
			_, anchor, _ := strings.Cut(rule.Annotations["runbook_url"], "docs/operations.md#")
			if !anchors[anchor] {
				t.Errorf("%s: no section %q in docs/operations.md", rule.Alert, anchor)
			}
			if !slices.Contains([]string{"page", "ticket"}, rule.Labels["severity"]) {
				t.Errorf("%s: severity %q is neither page nor ticket", rule.Alert, rule.Labels["severity"])
			}
			if rule.Annotations["summary"] == "" {
				t.Errorf("%s: no summary", rule.Alert)
			}
		}
	}
}

// TestDeploymentsSetWhatIsASetting: a misspelt variable or flag in a unit, the image or the compose file would stop a stage at its start.
func TestDeploymentsSetWhatIsASetting(t *testing.T) {
	t.Parallel()
	variables := []string{"CAMPANILE_VERSION", "CAMPANILE_DATABASE_PASSWORD"} // of the compose file itself
	for _, s := range settings() {
		variables = append(variables, envName(s.key))
	}
	root := newRoot(&terminal{})
	files, err := filepath.Glob(filepath.Join(deploymentsDir, "systemd", "*"))
	if err != nil {
		t.Fatal(err)
	}
	files = append(files, filepath.Join(deploymentsDir, "compose.yaml"), filepath.Join(deploymentsDir, "Dockerfile"))
	command := regexp.MustCompile(`(?m)^ExecStart=/usr/local/bin/campanile (.+)$`)
	commands := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range regexp.MustCompile(`CAMPANILE_[A-Z0-9_]+`).FindAllString(string(text), -1) {
			if !slices.Contains(variables, name) {
				t.Errorf("%s: %s is no setting", filepath.Base(file), name)
			}
		}
		for _, m := range command.FindAllStringSubmatch(string(text), -1) {
			checkCommandLine(t, root.Find, file, strings.Fields(m[1]))
			commands++
		}
	}
	var compose struct {
		Services map[string]struct {
			Image   string `yaml:"image"`
			Command any    `yaml:"command"`
		} `yaml:"services"`
	}
	text, err := os.ReadFile(filepath.Join(deploymentsDir, "compose.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, &compose); err != nil {
		t.Fatal(err)
	}
	for name, s := range compose.Services {
		args, ok := s.Command.([]any)
		if !ok || !strings.HasPrefix(s.Image, "campanile:") {
			continue
		}
		words := make([]string, 0, len(args))
		for _, a := range args {
			words = append(words, fmt.Sprint(a))
		}
		checkCommandLine(t, root.Find, "compose.yaml, "+name, words)
		commands++
	}
	if commands < 15 {
		t.Errorf("want the commands of every unit and service, found %d", commands)
	}
}

// checkCommandLine refuses a command or a flag that this build does not know.
func checkCommandLine(t *testing.T, find func([]string) (*cobra.Command, []string, error), where string, args []string) {
	t.Helper()
	cmd, rest, err := find(args)
	if err != nil || !cmd.HasParent() {
		t.Errorf("%s: %q is no command: %v", where, args, err)
		return
	}
	if err := cmd.ParseFlags(rest); err != nil {
		t.Errorf("%s: %q: %v", where, args, err)
	}
}
