package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/viper"
	"go.yaml.in/yaml/v3"

	"github.com/campanile-push/campanile/vault"
)

func configCommand(t *terminal) *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Look at the settings"}
	cmd.AddCommand(&cobra.Command{
		Use:   "print",
		Short: "Print the settings in force as a YAML file, secrets masked",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, _, err := t.setup(cmd)
			if err != nil {
				return err
			}
			for _, s := range settings() {
				if s.secret && c.values.GetString(s.key) != "" {
					c.values.Set(s.key, "********")
				}
				c.values.Set(s.key, typed(c.values, s))
			}
			text, err := yaml.Marshal(c.values.AllSettings())
			if err != nil {
				return err
			}
			fmt.Fprint(t.out, string(text))
			return nil
		},
	})
	return cmd
}

func keyFileCommand(t *terminal) *cobra.Command {
	var hash bool
	var id, dir string
	cmd := &cobra.Command{
		Use:   "key-file",
		Short: "Print a fresh master key, or token hash key, for a file that only Campanile may read",
		Long: `Prints a line for vault.master_key_file. To rotate the master key, put a line with a new id before the old one on every host, restart the
stages, and set the credentials again. With --hash it prints the key of the token hash, for vault.hash_key_file: make it once and keep it
for ever, since statistics are kept under it.

With --init it writes both, as master.key and hash.key, into a folder, and leaves those that are there as they are.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if dir != "" {
				return initKeys(dir, id, t.out)
			}
			if hash {
				fmt.Fprint(t.out, vault.NewHashKey())
				return nil
			}
			fmt.Fprint(t.out, vault.NewKeyLine(id))
			return nil
		},
	}
	cmd.Flags().BoolVar(&hash, "hash", false, "a token hash key")
	cmd.Flags().StringVar(&dir, "init", "", "folder to write both into, where they are not there yet")
	cmd.MarkFlagsMutuallyExclusive("hash", "init")
	cmd.Flags().StringVar(&id, "id", "1", "id of the master key, 1 to 32 characters without a colon")
	return cmd
}

// initKeys makes both keys of a new installation, and says which it made.
func initKeys(dir, id string, out io.Writer) error {
	keep := func(file string, create func() string) error {
		path, made := filepath.Join(dir, file), false
		_, err := vault.LoadOrCreate(path, func() string {
			made = true
			return create()
		})
		if err == nil && made {
			fmt.Fprintf(out, "made %s: keep a copy of it apart from the data\n", path)
		}
		return err
	}
	return errors.Join(
		keep("master.key", func() string { return vault.NewKeyLine(id) }),
		keep("hash.key", vault.NewHashKey))
}

// typed is a value as YAML should show it: flags and variables come as text.
func typed(v *viper.Viper, s setting) any {
	switch s.def.(type) {
	case bool:
		return v.GetBool(s.key)
	case int, int64:
		return v.GetInt64(s.key)
	case float64:
		return v.GetFloat64(s.key)
	case time.Duration:
		return v.GetDuration(s.key).String()
	case []string, []time.Duration:
		var list []string
		for _, item := range v.GetStringSlice(s.key) {
			list = append(list, strings.Split(item, ",")...)
		}
		return list
	}
	return v.GetString(s.key)
}
