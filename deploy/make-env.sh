#!/bin/sh
# Write .env for docker-compose.yml: random passwords, readable by its owner only. An existing one keeps its lines, and
# gets the passwords that it lacks.
set -eu

file=${1:-.env}

# Hexadecimal: needs no quoting in URLs and configuration files.
secret() {
    od -An -N"$1" -tx1 /dev/urandom | tr -d ' \n'
}

umask 077
if [ -e "$file" ]; then
    added=
    for name in PRODUCER WORKER GATEWAY NOTIFIER MONITOR READER ANALYST; do
        if ! grep -q "^${name}_PASSWORD=" "$file"; then
            echo "${name}_PASSWORD=$(secret 24)" >>"$file"
            added="$added ${name}_PASSWORD"
        fi
    done
    if [ -n "$added" ]; then
        echo "make-env: $file lacked and now has$added"
        exit 0
    fi
    echo "make-env: $file exists and stays as it is; remove it for new passwords (running servers keep their old ones)" >&2
    exit 1
fi
cat >"$file.part" <<END
# Made by deploy/make-env.sh. Keep it out of version control. The first two are the administrator's.
BROKER_PASSWORD=$(secret 24)
DATABASE_PASSWORD=$(secret 24)
# Logins of the broker and of the database, each with its own rights (docs/security.md).
PRODUCER_PASSWORD=$(secret 24)
WORKER_PASSWORD=$(secret 24)
GATEWAY_PASSWORD=$(secret 24)
NOTIFIER_PASSWORD=$(secret 24)
MONITOR_PASSWORD=$(secret 24)
READER_PASSWORD=$(secret 24)
ANALYST_PASSWORD=$(secret 24)

S3_ACCESS_KEY=$(secret 10)
S3_SECRET_KEY=$(secret 20)

# Tokens of the HTTP interface (docker compose --profile serve), NAME:TOKEN with a space between them.
SERVE_TOKENS=default:$(secret 24)

# The folder with the model and its manifest, and the model's path inside the containers (or an s3:// URI).
MODEL_DIR=./models
MODEL=/models/cough.onnx

# PyTorch's package index for CPUs, for docker compose build: the one that pytorch.org names for "CPU" (.../whl/cpu).
TORCH_INDEX=

# Child processes of each CPU worker (each takes a core), and its memory.
CONCURRENCY=2
WORKER_MEMORY=4g
END
mv "$file.part" "$file"
echo "make-env: wrote $file; put the model into ./models, or change MODEL_DIR and MODEL"
