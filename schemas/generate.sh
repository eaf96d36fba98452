#!/usr/bin/env bash
# Generates schemas/push/v1/*.pb.go. Needs protoc and the plugins that `make tools` puts into ./bin.
set -euo pipefail
cd "$(dirname "$0")"
out=${1:-.}
PATH="$PWD/../bin:$PATH" protoc -I . \
  --go_out="$out" --go_opt=paths=source_relative \
  --go-vtproto_out="$out" --go-vtproto_opt=paths=source_relative,features=marshal+unmarshal+unmarshal_unsafe+size \
  push/v1/*.proto
