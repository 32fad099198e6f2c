# Shared by the scripts here; sourced, never run. Nothing in it needs root or the network when everything is in place.

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
warn() { printf '\033[1;33mwarning:\033[0m %s\n' "$*" >&2; }
die() {
    printf '\033[1;31merror:\033[0m %s\n' "$*" >&2
    exit 1
}
if [[ ! -t 2 ]]; then # no colours into a file
    say() { printf '==> %s\n' "$*" >&2; }
    warn() { printf 'warning: %s\n' "$*" >&2; }
    die() {
        printf 'error: %s\n' "$*" >&2
        exit 1
    }
fi

# As root, through sudo where we are not. $1… the command.
as_root() {
    if ((EUID == 0)); then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo -- "$@"
    else
        die "this needs root, and there is no sudo here. As root, run: $*"
    fi
}

# Whether what a Debian package is needed for is there, however it got there. $1: package.
have_package() {
    case $1 in
        nginx) PATH=$PATH:/usr/sbin command -v nginx ;;
        supervisor) command -v supervisord ;;
        libfcgi-dev) find_header fcgiapp.h ;;
        libsqlite3-dev) find_header sqlite3.h ;;
        openssl | curl | pkg-config | git | make) command -v "$1" ;;
        ca-certificates) [[ -e /etc/ssl/certs/ca-certificates.crt ]] ;;
        python3-pip) python3 -m pip --version ;;
        # Debian leaves the bundled pip out of python3; `venv` imports, and then fails to make one.
        python3-venv) python3 -c 'import venv, ensurepip' ;;
        python3) command -v python3 ;;
        *) dpkg-query -W -f '${Status}' "$1" | grep -q 'ok installed' ;;
    esac >/dev/null 2>&1
}
find_header() {
    [[ -e /usr/include/$1 || -e /usr/local/include/$1 ]] ||
        compgen -G "/usr/include/*/$1" >/dev/null
}

# Installs the packages that are missing; says which. $@: Debian packages.
need_packages() {
    local package missing=() fresh_services=()
    for package; do
        have_package "$package" || missing+=("$package")
    done
    ((${#missing[@]})) || return 0

    command -v apt-get >/dev/null ||
        die "missing: ${missing[*]} (names of Debian 12). There is no apt-get here: install them your way, then start again."
    ((EUID == 0)) || command -v sudo >/dev/null ||
        die "missing: ${missing[*]}. You are not root and there is no sudo. As root, run: apt-get install ${missing[*]}"
    say "installing with apt: ${missing[*]}"

    for package in "${missing[@]}"; do
        case $package in nginx | supervisor) fresh_services+=("$package.service") ;; esac
    done
    # A subshell, so that the trap ends with the installation.
    (
        # While this file says 101, Debian's packages don't start their services: port 80 and supervisord are not ours to take.
        # An existing one is the administrator's and stays. One of ours that a `kill -9` left behind is recognised and removed.
        policy=/usr/sbin/policy-rc.d mark='# claude-fcgi: for the length of one installation'
        if [[ ! -e $policy ]] || grep -qxF "$mark" "$policy"; then
            trap 'as_root rm -f "$policy"' EXIT
            trap 'exit 130' INT TERM HUP
            printf '%s\n' '#!/bin/sh' "$mark" 'exit 101' | as_root tee "$policy" >/dev/null
            as_root chmod 755 "$policy"
        fi
        quietly as_root apt-get -q -o DPkg::Lock::Timeout=300 update
        quietly as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 \
            install --no-install-recommends "${missing[@]}"
    ) || die "apt-get could not install ${missing[*]}: see above."

    # Services that came just now must not start at the next boot either. (One that was here before is left as it is.)
    if ((${#fresh_services[@]})) && command -v systemctl >/dev/null; then
        as_root systemctl disable "${fresh_services[@]}" >/dev/null 2>&1 || true
    fi
    for package in "${missing[@]}"; do
        have_package "$package" || die "$package is installed, but what it is needed for is still missing."
    done
}

# Runs a command and shows its output only if it fails. $@: the command.
quietly() {
    local output
    if ! output=$("$@" 2>&1); then
        printf '%s\n' "$output" >&2
        return 1
    fi
}

# The packages that building takes, and those that running takes.
build_packages=(libfcgi-dev libsqlite3-dev pkg-config git)
run_packages=(python3 nginx supervisor openssl curl)

# Ends with advice unless there is a Swift that can build this.
need_swift() {
    local version
    command -v swift >/dev/null ||
        die "there is no swift on PATH. Install Swift 6.2 or newer (swift.org/install/linux), then start again."
    version=$(swift --version 2>/dev/null | sed -n 's/.*Swift version \([0-9]*\.[0-9]*\).*/\1/p' | head -n 1)
    [[ $version ]] || die "\`swift --version\` says no version. Is the toolchain whole? Try it by hand."
    ((${version%.*} * 1000 + ${version#*.} >= 6002)) ||
        die "this is Swift $version; 6.2 or newer is needed (swift.org/install/linux)."
}
