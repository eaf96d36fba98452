package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
	"github.com/campanile-push/campanile/simulator"
)

const demoTopic = "com.moodle.moodlemobile"

// simulatorInfo is what a running simulator leaves in its folder: where it is, and the credentials that it knows.
type simulatorInfo struct {
	APNS           string `json:"apns"`
	Sandbox        string `json:"apns_sandbox"`
	FCM            string `json:"fcm"` // with /v1
	Admin          string `json:"admin"`
	CA             string `json:"ca"`              // file
	P8             string `json:"p8"`              // file
	ServiceAccount string `json:"service_account"` // file
	TeamID         string `json:"team_id"`
	KeyID          string `json:"key_id"`
	Topic          string `json:"topic"`
}

func simulatorCommand(t *terminal) *cobra.Command {
	var o simulator.Options
	var scenario, latency, mix string
	var seed uint64
	cmd := &cobra.Command{
		Use:   "simulator",
		Short: "Stand in for Apple and Google on loopback, with a ledger of every push",
		Long: `Serves APNs (production and sandbox), FCM and Google's token endpoint over TLS, under a certificate authority of its own. It checks requests as the
providers do, fails as told (--mix, --scenario, or PUT /rules at the admin address), and keeps a ledger of every push that it accepted. <dir>/simulator.json
says where it is and which credentials it knows.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, logger, err := t.setup(cmd)
			if err != nil {
				return err
			}
			o.Logger = logger.With("stage", "simulator")
			if scenario != "" {
				if o.Scenario, err = simulator.LoadScenario(scenario); err != nil {
					return err
				}
			}
			f := cmd.Flags()
			if f.Changed("seed") || scenario == "" {
				o.Scenario.Seed = seed
			}
			if f.Changed("latency") {
				if o.Scenario.Latency, err = simulator.ParseLatency(latency); err != nil {
					return err
				}
			}
			if f.Changed("mix") {
				if o.Scenario.Mix, err = simulator.ParseMix(mix); err != nil {
					return err
				}
			}
			ctx := cmd.Context()
			sim, err := simulator.Start(ctx, o)
			if err != nil {
				return err
			}
			if err := writeSimulatorInfo(sim, o.Dir); err != nil {
				_ = sim.Close()
				return err
			}
			fmt.Fprintf(t.out, "APNs %s\nAPNs sandbox %s\nFCM %s/v1\nadmin %s\ncredentials and ledger in %s\n", sim.APNSURL(), sim.SandboxURL(), sim.FCMURL(), sim.AdminURL(), o.Dir)
			<-ctx.Done()
			return sim.Close()
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Dir, "dir", "build/simulator", "folder of its certificates, credentials and ledger")
	f.StringVar(&o.APNSAddr, "apns", "", "address of APNs; empty: loopback, the last run's port if it is free")
	f.StringVar(&o.APNSSandboxAddr, "apns-sandbox", "", "address of APNs' sandbox")
	f.StringVar(&o.FCMAddr, "fcm", "", "address of FCM")
	f.StringVar(&o.AdminAddr, "admin", "", "address of the admin API; loopback only, it knows no passwords")
	f.StringVar(&o.Server, "server", simulator.ServerFrames, "frames, or nethttp: Go's own server, the reference for the other")
	f.StringVar(&scenario, "scenario", "", "YAML file of latency, mix and rules")
	f.Uint64Var(&seed, "seed", 1, "picks which tokens fail")
	f.StringVar(&latency, "latency", "0", `of each answer: 20ms, uniform:10ms,50ms, lognormal:20ms,80ms (median and 99th percentile) or bimodal:20ms,2s,0.01`)
	f.StringVar(&mix, "mix", "", "share of tokens by reason, such as dead=0.02,throttled=0.01")
	f.IntVar(&o.Exact, "exact", 0, "keep so many of the last pushes whole, for GET /pushes")
	return cmd
}

func writeSimulatorInfo(sim *simulator.Simulator, dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	key := sim.APNSKey()
	info := simulatorInfo{
		APNS: sim.APNSURL(), Sandbox: sim.SandboxURL(), FCM: sim.FCMURL() + "/v1", Admin: sim.AdminURL(),
		CA: filepath.Join(dir, simulator.CAFile), P8: filepath.Join(dir, "apns.p8"), ServiceAccount: filepath.Join(dir, simulator.ServiceAccountFile),
		TeamID: key.TeamID, KeyID: key.KeyID, Topic: demoTopic,
	}
	if err := os.WriteFile(info.P8, []byte(key.P8), 0o600); err != nil {
		return err
	}
	text, err := json.MarshalIndent(info, "", "  ")
	if err != nil {
		return err
	}
	temporary := filepath.Join(dir, "simulator.json.new")
	if err := os.WriteFile(temporary, append(text, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, filepath.Join(dir, "simulator.json"))
}

// simulatorCredentials are a simulator's credentials as they are sealed into the log.
func simulatorCredentials(sim *simulator.Simulator) (apns, fcm []byte, err error) {
	key := sim.APNSKey()
	apns, err = (&pushv1.ApnsCredentials{Topic: demoTopic, TeamId: key.TeamID, KeyId: key.KeyID, P8: key.P8}).MarshalVT()
	if err != nil {
		return nil, nil, err
	}
	account, err := sim.ServiceAccount(simulator.DefaultProject)
	if err != nil {
		return nil, nil, err
	}
	fcm, err = (&pushv1.FcmCredentials{ProjectId: simulator.DefaultProject, ServiceAccountJson: string(account)}).MarshalVT()
	return apns, fcm, err
}

// demoTiers are short, so that a demonstration settles while one looks on.
func demoTiers() []time.Duration {
	return []time.Duration{time.Second, 2 * time.Second, 5 * time.Second, time.Second}
}
