package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/go-viper/mapstructure/v2"
	"github.com/spf13/pflag"
	"github.com/spf13/viper"

	"github.com/campanile-push/campanile/router"
	"github.com/campanile-push/campanile/schemas"
	"github.com/campanile-push/campanile/senders"
)

// Config is what every command shares. Each field is a flag (--kafka-brokers), a variable (CAMPANILE_KAFKA_BROKERS) and a key of the
// YAML file (kafka: brokers:), in this order of precedence.
type Config struct {
	Data    string
	Threads int
	Log     struct{ Level, Format string }
	HTTP    struct {
		Listen         string
		TrustedProxies []string      `mapstructure:"trusted_proxies"`
		SiteCheckURL   string        `mapstructure:"site_check_url"`
		TLSCert        string        `mapstructure:"tls_cert"`
		TLSKey         string        `mapstructure:"tls_key"`
		RepeatWithin   time.Duration `mapstructure:"repeat_within"`
	}
	Ops   struct{ Listen string }
	Kafka struct {
		Brokers            []string
		Prefix             string
		Partitions         int32
		Replication        int16
		SessionTimeout     time.Duration `mapstructure:"session_timeout"`
		TransactionTimeout time.Duration `mapstructure:"transaction_timeout"`
		TLS                bool
		CA                 string
		SASL               struct{ Mechanism, User, Password string }
	}
	Cockroach  struct{ URL string }
	ClickHouse struct {
		URL     string
		Library string
	}
	Embedded struct {
		Fsync  bool
		MaxLog int64 `mapstructure:"max_log"`
	}
	Vault struct {
		MasterKeyFile string `mapstructure:"master_key_file"`
		HashKeyFile   string `mapstructure:"hash_key_file"`
	}
	Router struct {
		Lead      time.Duration
		StartRate float64       `mapstructure:"start_rate"`
		MaxPage   int           `mapstructure:"max_page"`
		MostCPU   float64       `mapstructure:"most_cpu"`
		KeepEnded time.Duration `mapstructure:"keep_ended"`
		MaxKnown  int64         `mapstructure:"max_known"`
		StopAbove float64       `mapstructure:"stop_above"`
		StopYoung time.Duration `mapstructure:"stop_young"`
	}
	Senders struct {
		Transport string
		Tiers     []time.Duration
		Window    int
		InFlight  int           `mapstructure:"in_flight"`
		InMemory  int           `mapstructure:"in_memory"`
		GCPercent int           `mapstructure:"gc_percent"`
		MaxAge    time.Duration `mapstructure:"max_age"`
		FCMQuota  float64       `mapstructure:"fcm_quota"`
		FCMQuotas []string      `mapstructure:"fcm_quotas"`
		FCMRamp   time.Duration `mapstructure:"fcm_ramp"`
	}
	APNS struct {
		Host        string
		SandboxHost string `mapstructure:"sandbox_host"`
		CA          string
	}
	FCM struct {
		Endpoint string
		CA       string
	}

	values *viper.Viper
}

// setting is one row of the table from which flags, variables and file keys are made.
type setting struct {
	key    string // of the YAML file; the flag is the same with dashes
	def    any
	usage  string
	secret bool // masked by `config print`
}

func settings() []setting {
	return []setting{
		{key: "data", def: "data", usage: "folder of the embedded engines and of generated secrets"},
		{key: "threads", def: 0, usage: "goroutines that may run at once; 0: four for each core, so that direct pushes do not wait behind a broadcast's work; in a process of senders alone as many as it has work for, one for each core at most"},
		{key: "log.level", def: "info", usage: "debug, info, warn or error"},
		{key: "log.format", def: "text", usage: "text or json"},
		{key: "http.listen", def: "127.0.0.1:8801", usage: "address of the API that phones and sites call"},
		{key: "http.tls_cert", def: "", usage: "PEM file of the API's certificate and its chain, read again when it changes and on SIGHUP; empty: plain HTTP"},
		{key: "http.tls_key", def: "", usage: "PEM file of that certificate's private key"},
		{key: "http.trusted_proxies", def: []string{}, usage: "proxies whose X-Forwarded-For is believed, as addresses or CIDR"},
		{key: "http.site_check_url", def: "", usage: "https URL that is asked with siteid and url about a site, for apps whose access keys need a remote check"},
		{key: "http.repeat_within", def: time.Duration(0), usage: "drop a v1 or v2 push or broadcast that says the same under the same key within this time, at most 1m; 0: none is dropped"},
		{key: "ops.listen", def: "127.0.0.1:8802", usage: "address of /healthz, /readyz, /metrics and /debug/pprof; keep it private"},
		{key: "kafka.brokers", def: []string{}, usage: "bootstrap brokers, host:port; empty: the embedded log under data"},
		{key: "kafka.prefix", def: "", usage: "prefix of topics, groups and transactional ids"},
		{key: "kafka.partitions", def: 0, usage: "partitions of each topic, fixed at creation; 0: 24 on Kafka, 4 embedded"},
		{key: "kafka.replication", def: 3, usage: "replicas of each topic that is created"},
		{key: "kafka.session_timeout", def: 6 * time.Second, usage: "after which a silent process loses its partitions"},
		{key: "kafka.transaction_timeout", def: 10 * time.Second, usage: "after which a silent router's transaction is aborted"},
		{key: "kafka.tls", def: false, usage: "speak TLS to the brokers"},
		{key: "kafka.ca", def: "", usage: "PEM file of the authority that signed the brokers' certificates; empty: the system's"},
		{key: "kafka.sasl.mechanism", def: "", usage: "plain, scram-sha-256 or scram-sha-512; empty: none"},
		{key: "kafka.sasl.user", def: "", usage: "SASL user"},
		{key: "kafka.sasl.password", def: "", usage: "SASL password", secret: true},
		{key: "cockroach.url", def: "", usage: "postgres:// URL of CockroachDB; empty: the embedded store under data", secret: true},
		{key: "clickhouse.url", def: "", usage: "clickhouse:// or http:// URL of ClickHouse; empty: the embedded engine, where libchdb is found", secret: true},
		{key: "clickhouse.library", def: "", usage: "path of libchdb.so; empty: CHDB_LIB_PATH, then the places where \"make chdb\" puts it"},
		{key: "embedded.fsync", def: false, usage: "the embedded log and store survive a power cut, more slowly"},
		{key: "embedded.max_log", def: int64(1 << 30), usage: "bytes that the embedded log may take on disk, and in memory at start"},
		{key: "vault.master_key_file", def: "", usage: "keys that seal credentials; empty: <data>/master.key, made at the first start"},
		{key: "vault.hash_key_file", def: "", usage: "key of the token hash, never to be changed; empty: <data>/hash.key, made at the first start"},
		{key: "router.lead", def: 2 * time.Second, usage: "how far expansion runs ahead of the providers"},
		{key: "router.start_rate", def: 10000.0, usage: "pushes a second that a provider is trusted with before its rate is known"},
		{key: "router.max_page", def: 10000, usage: "most sends in one transaction, 100 to 50000"},
		{key: "router.most_cpu", def: router.MostCPU, usage: "share of the CPU, 0 to 1, that is used while direct pushes or small broadcasts come, as far as large broadcasts can help it; 1: all"},
		{key: "router.keep_ended", def: 7 * 24 * time.Hour, usage: "how long an ended broadcast stays in the log"},
		{key: "router.stop_above", def: 0.5, usage: "share of failed pushes, 0 to 1, above which a broadcast pauses itself; 0: it never does"},
		{key: "router.stop_young", def: 7 * 24 * time.Hour, usage: "for how long after they were set an app's credentials are watched so; 0: for ever"},
		{key: "router.max_known", def: int64(4_000_000), usage: "notifications of the last day under an Idempotency-Key that a router knows again, at some 30 bytes each"},
		{key: "senders.transport", def: senders.H2Transport, usage: "HTTP/2 client of the senders: h2 (batching) or stock (the vendors' libraries apns2 and go-fcm)"},
		{key: "senders.tiers", def: []time.Duration{10 * time.Second, time.Minute, 15 * time.Minute, 30 * time.Second}, usage: "delays of the three retry tiers, and of the look at parked sends"},
		{key: "senders.window", def: 8192, usage: "pushes in flight for each partition"},
		{key: "senders.in_flight", def: 4000, usage: "pushes in flight of a transport's lane, over all apps; an app gets half at most, and less while its provider answers late"},
		{key: "senders.in_memory", def: 0, usage: "sends of a transport's lane that a process has in memory, waiting or in flight, beyond which each partition goes on with its equal part; 0: twice senders.in_flight"},
		{key: "senders.gc_percent", def: senders.GCPercent, usage: "how much the heap of a process of senders alone may grow between garbage collections, percent, where senders.transport is h2 and GOGC is not set; 0: Go's default"},
		{key: "senders.fcm_quota", def: float64(senders.FCMQuota), usage: "pushes a second that an FCM project takes, over all processes; 0: no limit"},
		{key: "senders.fcm_quotas", def: []string{}, usage: "projects with another quota, as project=pushes a second"},
		{key: "senders.fcm_ramp", def: time.Minute, usage: "how long a broadcast takes to rise to an FCM project's quota; 0: no time"},
		{key: "senders.max_age", def: 24 * time.Hour, usage: "how long a push without an expiry is tried"},
		{key: "apns.host", def: "https://api.push.apple.com", usage: "APNs production host"},
		{key: "apns.sandbox_host", def: "https://api.sandbox.push.apple.com", usage: "APNs development host"},
		{key: "apns.ca", def: "", usage: "PEM file of the authority of both hosts; empty: the system's"},
		{key: "fcm.endpoint", def: "https://fcm.googleapis.com/v1", usage: "FCM's HTTP v1 endpoint"},
		{key: "fcm.ca", def: "", usage: "PEM file of its authority; empty: the system's"},
	}
}

func flagName(key string) string { return strings.NewReplacer(".", "-", "_", "-").Replace(key) }

func envName(key string) string {
	return "CAMPANILE_" + strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(key))
}

// addConfigFlags declares every setting as a flag.
func addConfigFlags(flags *pflag.FlagSet) {
	flags.String("config", "", "YAML file of settings (CAMPANILE_CONFIG)")
	for _, s := range settings() {
		name := flagName(s.key)
		switch def := s.def.(type) {
		case string:
			flags.String(name, def, s.usage)
		case []string:
			flags.StringSlice(name, def, s.usage)
		case bool:
			flags.Bool(name, def, s.usage)
		case int:
			flags.Int(name, def, s.usage)
		case int64:
			flags.Int64(name, def, s.usage)
		case float64:
			flags.Float64(name, def, s.usage)
		case time.Duration:
			flags.Duration(name, def, s.usage)
		case []time.Duration:
			flags.DurationSlice(name, def, s.usage)
		default:
			panic("setting " + s.key + " has a type without a flag")
		}
	}
}

// loadConfig merges flags, environment and file, and checks the whole.
func loadConfig(flags *pflag.FlagSet, environ []string) (*Config, error) {
	v := viper.New()
	known := map[string]bool{}
	for _, s := range settings() {
		known[s.key] = true
		v.SetDefault(s.key, s.def)
	}
	file, _ := flags.GetString("config")
	if file == "" {
		file = lookup(environ, "CAMPANILE_CONFIG")
	}
	if file != "" {
		v.SetConfigFile(file)
		v.SetConfigType("yaml")
		if err := v.ReadInConfig(); err != nil {
			return nil, fmt.Errorf("config file: %w", err)
		}
		for _, key := range v.AllKeys() {
			if !known[key] {
				return nil, fmt.Errorf("config file %s: unknown setting %q%s", file, key, suggest(key))
			}
		}
	}
	if err := checkEnvironment(environ); err != nil {
		return nil, err
	}
	for _, s := range settings() {
		flag := flags.Lookup(flagName(s.key))
		switch value := lookup(environ, envName(s.key)); {
		case flag != nil && flag.Changed:
			v.Set(s.key, flagValue(flag))
		case value != "":
			v.Set(s.key, value)
		}
	}
	var c Config
	err := v.Unmarshal(&c, viper.DecodeHook(mapstructure.ComposeDecodeHookFunc(
		mapstructure.StringToTimeDurationHookFunc(), mapstructure.StringToWeakSliceHookFunc(","))))
	if err != nil {
		return nil, fmt.Errorf("settings: %w", err)
	}
	c.values = v
	return &c, c.check()
}

func flagValue(f *pflag.Flag) any {
	if list, ok := f.Value.(pflag.SliceValue); ok {
		return list.GetSlice()
	}
	return f.Value.String()
}

func lookup(environ []string, name string) string {
	for _, e := range environ {
		if k, value, ok := strings.Cut(e, "="); ok && k == name {
			return value
		}
	}
	return ""
}

// checkEnvironment refuses CAMPANILE_ variables that mean nothing: a misspelt setting must not be silently the default.
func checkEnvironment(environ []string) error {
	names := []string{"CAMPANILE_CONFIG", "CAMPANILE_SKIP_REAL", "CAMPANILE_PROOFS"}
	for _, s := range settings() {
		names = append(names, envName(s.key))
	}
	for _, e := range environ {
		name, _, _ := strings.Cut(e, "=")
		if strings.HasPrefix(name, "CAMPANILE_") && !slices.Contains(names, name) {
			key := strings.ToLower(strings.TrimPrefix(name, "CAMPANILE_"))
			return fmt.Errorf("environment: unknown variable %s%s", name, suggest(key))
		}
	}
	return nil
}

// suggest names the settings nearest to a misspelt one.
func suggest(key string) string {
	var near []string
	last := key[strings.LastIndexAny(key, "._")+1:]
	first, _, _ := strings.Cut(strings.ReplaceAll(key, "_", "."), ".")
	for _, s := range settings() {
		if strings.HasSuffix(s.key, last) || strings.HasPrefix(s.key, first+".") {
			near = append(near, s.key)
		}
	}
	if len(near) == 0 {
		return "; `campanile config print` lists them"
	}
	sort.Strings(near)
	return "; did you mean one of " + strings.Join(near, ", ") + "?"
}

// check returns every complaint at once, each with what to do.
func (c *Config) check() error {
	var errs []error
	complain := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s (--%s, %s): %s", key, flagName(key), envName(key), fmt.Sprintf(format, args...)))
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, c.Log.Level) {
		complain("log.level", "%q is none of debug, info, warn, error", c.Log.Level)
	}
	if !slices.Contains([]string{"text", "json"}, c.Log.Format) {
		complain("log.format", "%q is neither text nor json", c.Log.Format)
	}
	for key, address := range map[string]string{"http.listen": c.HTTP.Listen, "ops.listen": c.Ops.Listen} {
		if _, _, err := net.SplitHostPort(address); err != nil {
			complain(key, "%q is no address: want host:port, such as 0.0.0.0:8801", address)
		}
	}
	for _, p := range c.HTTP.TrustedProxies {
		_, addrErr := netip.ParseAddr(p)
		if _, err := netip.ParsePrefix(p); err != nil && addrErr != nil {
			complain("http.trusted_proxies", "%q is neither an address nor CIDR", p)
		}
	}
	if (c.HTTP.TLSCert == "") != (c.HTTP.TLSKey == "") {
		complain("http.tls_cert", "http.tls_cert and http.tls_key go together: set both, or neither for plain HTTP")
	}
	if w := c.HTTP.RepeatWithin; w < 0 || w > schemas.MaxRepeatWithin {
		complain("http.repeat_within", "%s: want 0 to %s", w, schemas.MaxRepeatWithin)
	}
	for _, b := range c.Kafka.Brokers {
		if _, _, err := net.SplitHostPort(b); err != nil {
			complain("kafka.brokers", "%q is no broker: want host:port", b)
		}
	}
	if c.Kafka.Partitions < 0 || c.Kafka.Partitions > 1024 {
		complain("kafka.partitions", "%d: want 1 to 1024, or 0 for the default", c.Kafka.Partitions)
	}
	if c.Kafka.Replication < 1 {
		complain("kafka.replication", "%d: want at least 1", c.Kafka.Replication)
	}
	if c.Kafka.SessionTimeout < time.Second || c.Kafka.SessionTimeout > 5*time.Minute {
		complain("kafka.session_timeout", "%s: want 1s to 5m; 6s to 10s is meant", c.Kafka.SessionTimeout)
	}
	if c.Kafka.TransactionTimeout < time.Second {
		complain("kafka.transaction_timeout", "%s: want at least 1s", c.Kafka.TransactionTimeout)
	}
	if m := c.Kafka.SASL.Mechanism; m != "" && !slices.Contains([]string{"plain", "scram-sha-256", "scram-sha-512"}, m) {
		complain("kafka.sasl.mechanism", "%q is none of plain, scram-sha-256, scram-sha-512", m)
	} else if m != "" && c.Kafka.SASL.User == "" {
		complain("kafka.sasl.user", "%s needs a user", m)
	}
	for key, file := range map[string]string{
		"http.tls_cert": c.HTTP.TLSCert, "http.tls_key": c.HTTP.TLSKey, "kafka.ca": c.Kafka.CA, "apns.ca": c.APNS.CA, "fcm.ca": c.FCM.CA, "clickhouse.library": c.ClickHouse.Library,
		"vault.master_key_file": c.Vault.MasterKeyFile, "vault.hash_key_file": c.Vault.HashKeyFile,
	} {
		if file == "" {
			continue
		}
		if _, err := os.Stat(file); err != nil {
			complain(key, "%v", err)
		}
	}
	for key, text := range map[string]string{
		"cockroach.url": c.Cockroach.URL, "clickhouse.url": c.ClickHouse.URL,
		"http.site_check_url": c.HTTP.SiteCheckURL, "apns.host": c.APNS.Host, "apns.sandbox_host": c.APNS.SandboxHost, "fcm.endpoint": c.FCM.Endpoint,
	} {
		if u, err := url.Parse(text); text != "" && (err != nil || u.Host == "") {
			complain(key, "no URL: want scheme://host…") // the text may hold a password
		}
	}
	if (len(c.Kafka.Brokers) == 0) && c.Cockroach.URL != "" {
		complain("kafka.brokers", "CockroachDB is meant to be fed from Kafka: name the brokers, or leave cockroach.url empty")
	}
	if c.Router.MaxPage < 100 || c.Router.MaxPage > 50000 {
		complain("router.max_page", "%d: want 100 to 50000", c.Router.MaxPage)
	}
	if c.Router.MostCPU <= 0 || c.Router.MostCPU > 1 {
		complain("router.most_cpu", "%v: want more than 0, and 1 at most", c.Router.MostCPU)
	}
	if c.Router.StopAbove < 0 || c.Router.StopAbove >= 1 {
		complain("router.stop_above", "%v: want 0 to 1, without 1", c.Router.StopAbove)
	}
	if c.Router.StopYoung < 0 {
		complain("router.stop_young", "%s: want a time, or 0", c.Router.StopYoung)
	}
	if c.Router.MaxKnown < 1 {
		complain("router.max_known", "%d: want at least 1", c.Router.MaxKnown)
	}
	if c.Router.Lead <= 0 {
		complain("router.lead", "%s: want more than zero", c.Router.Lead)
	}
	if c.Router.StartRate <= 0 {
		complain("router.start_rate", "%v: want more than zero", c.Router.StartRate)
	}
	if t := c.Senders.Transport; t != senders.StockTransport && t != senders.H2Transport {
		complain("senders.transport", "%q is neither %s nor %s", t, senders.StockTransport, senders.H2Transport)
	}
	if len(c.Senders.Tiers) != 4 || slices.Min(append([]time.Duration{time.Hour}, c.Senders.Tiers...)) <= 0 {
		complain("senders.tiers", "%v: want four delays above zero, such as 10s,1m,15m,30s", c.Senders.Tiers)
	}
	if c.Senders.Window < 1 {
		complain("senders.window", "%d: want at least 1", c.Senders.Window)
	}
	if c.Senders.InMemory != 0 && c.Senders.InMemory < c.Senders.InFlight {
		complain("senders.in_memory", "%d: want at least senders.in_flight, which is %d, or 0", c.Senders.InMemory, c.Senders.InFlight)
	}
	if c.Senders.InFlight < 16 {
		complain("senders.in_flight", "%d: want at least 16", c.Senders.InFlight)
	}
	if c.Senders.FCMQuota < 0 {
		complain("senders.fcm_quota", "%v: want pushes a second, or 0 for no limit", c.Senders.FCMQuota)
	}
	if _, err := c.fcmQuotas(); err != nil {
		complain("senders.fcm_quotas", "%v", err)
	}
	if c.Senders.FCMRamp < 0 {
		complain("senders.fcm_ramp", "%s: want no less than zero", c.Senders.FCMRamp)
	}
	if c.Senders.MaxAge <= 0 {
		complain("senders.max_age", "%s: want more than zero", c.Senders.MaxAge)
	}
	if c.Embedded.MaxLog < 64<<20 {
		complain("embedded.max_log", "%d: want at least 67108864 (64 MiB)", c.Embedded.MaxLog)
	}
	sort.Slice(errs, func(i, j int) bool { return errs[i].Error() < errs[j].Error() }) // maps above have no order
	return errors.Join(errs...)
}

// fcmQuotas reads senders.fcm_quotas.
func (c *Config) fcmQuotas() (map[string]float64, error) {
	rates := map[string]float64{}
	for _, text := range c.Senders.FCMQuotas {
		project, number, _ := strings.Cut(text, "=")
		rate, err := strconv.ParseFloat(number, 64)
		if project == "" || err != nil || !(rate >= 0 && rate < 1e9) {
			return nil, fmt.Errorf("%q: want project=pushes a second, such as my-project=20000", text)
		}
		rates[project] = rate
	}
	return rates, nil
}

// embedded reports whether the log is the one in the data folder.
func (c *Config) embedded() bool { return len(c.Kafka.Brokers) == 0 }
