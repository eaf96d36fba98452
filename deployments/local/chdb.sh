#!/bin/sh
# Fetches libchdb, the ClickHouse engine as a library, into build/chdb and prints its CHDB_LIB_PATH.
#
# The npm package is the only form in which chDB publishes the bare library for Linux. npm checks the download against the
# integrity below; the package runs no script. Run again, it does nothing but print.
set -eu

version=26.7.3-stable.1
# Of the tarball, as the registry published it: a registry or mirror that serves something else is refused.
integrity=sha512-XP97mMqnc5tZpKQywR8N7cLTsHNiTmHr30pC5mzo3jWmukjKn2IBa60c2B/gWUNcuFjOMjWoorQICCqBVj5wpw==

root=$(CDPATH= cd -- "$(dirname -- "$0")/../.." && pwd)
dir=$root/build/chdb
package=$dir/node_modules/@chdb/lib-linux-x64-gnu
lib=$package/libchdb.so

case "$(uname -s)-$(uname -m)" in
Linux-x86_64) ;;
*)
	echo "chdb.sh: libchdb is fetched for Linux x86-64 only, and this is $(uname -sm)." >&2
	echo "chdb.sh: give Campanile a ClickHouse server instead (CLICKHOUSE_URL), or set CHDB_LIB_PATH to a libchdb of your own." >&2
	exit 2
	;;
esac

done_with() {
	[ -s "$lib" ] && [ "$(cat "$dir/version" 2>/dev/null)" = "$version" ]
}

if ! done_with; then
	command -v npm >/dev/null || {
		echo "chdb.sh: npm is needed to fetch libchdb: apt-get install npm" >&2
		exit 2
	}
	mkdir -p "$dir"
	# One fetch at a time; who waited finds it done.
	exec 9>"$dir/lock"
	if command -v flock >/dev/null; then
		flock 9
	fi
	if ! done_with; then
		echo "chdb.sh: fetching @chdb/lib-linux-x64-gnu@$version (a download of about 150 MB, 570 MB unpacked)" >&2
		rm -rf "$dir/node_modules" "$dir/version" "$dir/package-lock.json"
		cat >"$dir/package.json" <<JSON
{"name": "campanile-chdb", "private": true, "dependencies": {"@chdb/lib-linux-x64-gnu": "$version"}}
JSON
		(cd "$dir" && npm install --ignore-scripts --no-audit --no-fund --loglevel=error >&2)
		if ! grep -q "$integrity" "$dir/package-lock.json"; then
			echo "chdb.sh: what npm fetched is not the package this script was written for (integrity differs): refused" >&2
			rm -rf "$dir/node_modules"
			exit 1
		fi
		[ -s "$lib" ] || {
			echo "chdb.sh: the package holds no libchdb.so" >&2
			exit 1
		}
		echo "$version" >"$dir/version"
	fi
fi
echo "CHDB_LIB_PATH=$lib"
