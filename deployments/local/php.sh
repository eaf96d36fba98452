#!/usr/bin/env bash
# Finds PHP with its curl extension, which is how Moodle calls a push server, and installs both from Debian's packages where they are
# missing (as root). Prints PHP=… and the versions that a test ran with. It may run again at any time.
set -euo pipefail

fail() { echo "php.sh: $*" >&2; exit 1; }

php=${PHP:-$(command -v php || true)}
has_curl() { [[ -n $php ]] && "$php" -r 'exit(extension_loaded("curl") ? 0 : 1);'; }

if ! has_curl; then
  [[ -z ${PHP:-} ]] || fail "$PHP has no curl extension"
  command -v apt-get >/dev/null || fail 'PHP with curl is missing: install it'
  [[ $(id -u) == 0 ]] || fail 'PHP with curl is missing: apt-get install php-cli php-curl'
  exec 9>"${TMPDIR:-/tmp}/campanile-php.lock"
  flock 9 # tests of several packages may ask at once
  { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends php-cli php-curl; } >&2 9>&- ||
    fail 'php-cli and php-curl cannot be installed from the packages'
  php=$(command -v php || true)
  has_curl || fail 'php-curl is installed, and PHP does not load it'
fi
echo "PHP=$php"
"$php" -r '$v = curl_version(); echo "VERSIONS=PHP ", PHP_VERSION, ", libcurl ", $v["version"], ", ", $v["ssl_version"], "\n";'
