package chdb

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// LibraryEnv names the environment variable that says where libchdb.so is.
const LibraryEnv = "CHDB_LIB_PATH"

// libraryInBuild is where deployments/local/chdb.sh puts the library, below the folder that holds the project.
const libraryInBuild = "build/chdb/node_modules/@chdb/lib-linux-x64-gnu/libchdb.so"

// ErrNoLibrary says that there is no libchdb on this machine.
var ErrNoLibrary = errors.New("libchdb.so, the embedded ClickHouse engine, is not there: get it with `make chdb` (Linux x86-64, about 570 MB), " +
	"or set " + LibraryEnv + " to it, or give a ClickHouse server's URL instead")

// FindLibrary returns the path of libchdb.so: the first of paths that is not empty, or else CHDB_LIB_PATH, or else
// build/chdb below the executable's folder or the working directory, or below a folder above one of them. A path that was
// named must be there. The error is ErrNoLibrary, wrapped, and says how to get it.
func FindLibrary(paths ...string) (string, error) {
	for _, path := range append(paths, os.Getenv(LibraryEnv)) {
		if path == "" {
			continue
		}
		if !isFile(path) {
			return "", fmt.Errorf("%s is no file: %w", path, ErrNoLibrary)
		}
		return path, nil
	}
	var starts []string
	if exe, err := os.Executable(); err == nil {
		starts = append(starts, filepath.Dir(exe))
	}
	if cwd, err := os.Getwd(); err == nil {
		starts = append(starts, cwd)
	}
	for _, dir := range starts {
		for {
			if path := filepath.Join(dir, filepath.FromSlash(libraryInBuild)); isFile(path) {
				return path, nil
			}
			parent := filepath.Dir(dir)
			if parent == dir {
				break
			}
			dir = parent
		}
	}
	return "", ErrNoLibrary
}

func isFile(path string) bool {
	info, err := os.Stat(path) //nolint:gosec // the operator names it
	return err == nil && info.Mode().IsRegular()
}
