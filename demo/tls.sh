#!/bin/sh
# The demo behind nginx with TLS, with the strictest cookie that browsers know:
#
#     demo/tls.sh        then open https://localhost:8443; Ctrl+C ends it
#
# Needs nginx, openssl, and what README's command has installed in .venv.  The certificate is valid for a day
# and self-signed, so the browser warns.
set -e
cd "$(dirname "$0")/.."
dir=$(mktemp -d)
trap 'trap "" INT TERM; kill $app $nginx 2>/dev/null || :; wait; rm -rf "$dir"' EXIT
trap exit INT TERM

openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -addext subjectAltName=DNS:localhost \
    -keyout "$dir/key.pem" -out "$dir/certificate.pem" 2>/dev/null

cat >"$dir/nginx.conf" <<END
daemon off; master_process off; pid $dir/pid; error_log stderr; events {}
http {
    access_log off;
    client_body_temp_path $dir/body; proxy_temp_path $dir/proxy; fastcgi_temp_path $dir/fastcgi;
    uwsgi_temp_path $dir/uwsgi; scgi_temp_path $dir/scgi;
    server {
        listen 127.0.0.1:${PORT:-8443} ssl;
        ssl_certificate $dir/certificate.pem;
        ssl_certificate_key $dir/key.pem;
        location / {
            proxy_pass http://unix:$dir/app;
            proxy_set_header Host \$http_host;
            proxy_set_header X-Forwarded-Proto \$scheme;
        }
    }
}
END

# Only nginx reaches the socket, whose folder belongs to this user, so its headers are believed.
SESSION_PROFILE=strict "${PYTHON:-.venv/bin/python}" -m waitress --unix-socket="$dir/app" \
    --trusted-proxy=localhost --trusted-proxy-headers=x-forwarded-proto demo.app:app &
app=$!
until [ -S "$dir/app" ]; do kill -0 $app; sleep 0.1; done
PATH="$PATH:/usr/sbin" nginx -e stderr -c "$dir/nginx.conf" &
nginx=$!
wait $nginx
