#!/bin/sh
# Write .env for docker-compose.yml: random passwords, readable by its owner only. An existing one stays as it is.
set -eu

file=${1:-.env}
if [ -e "$file" ]; then
    echo "make-env: $file exists and stays as it is; remove it for new passwords (running servers keep their old ones)" >&2
    exit 1
fi

# Hexadecimal: needs no quoting in URLs and configuration files.
secret() {
    od -An -N"$1" -tx1 /dev/urandom | tr -d ' \n'
}

umask 077
cat >"$file.part" <<END
# Made by deploy/make-env.sh. Keep it out of version control.
BROKER_PASSWORD=$(secret 24)
DATABASE_PASSWORD=$(secret 24)
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
