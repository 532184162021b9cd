"""A mail server that keeps each mail as JSON: MODE PORT FOLDER PASSWORD."""
import asyncio
import email
import email.policy
import json
import os
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

mode, port, folder, password = sys.argv[1:]
count = 0


class Keep:
    async def handle_DATA(self, server, session, envelope):
        global count
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        part = lambda kind: (mail.get_body((kind,)) or mail).get_content()
        kept = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "tls": session.ssl is not None or mode == "implicit",
            "login": session.auth_data.decode() if session.auth_data else None,
            "headers": [[name, str(value)] for name, value in mail.items()],
            "subject": str(mail["subject"]),
            "text": part("plain"),
            "html": part("html"),
        }
        name = os.path.join(folder, "%06d.json" % count)
        count += 1
        with open(name + ".new", "w") as file:
            json.dump(kept, file)
        os.rename(name + ".new", name)
        return "250 kept"


def authenticate(server, session, envelope, mechanism, data):
    good = isinstance(data, LoginPassword) and data.password.decode() == password
    return AuthResult(success=good, handled=False, auth_data=data.login if good else None)


async def main():
    context = None
    if mode != "none":
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(os.path.join(folder, "server.pem"), os.path.join(folder, "server.key"))
    options = {"hostname": "localhost"}
    if password:
        options.update(authenticator=authenticate, auth_required=True, auth_require_tls=mode == "starttls")
    if mode == "starttls":
        options.update(tls_context=context, require_starttls=True)
    loop = asyncio.get_running_loop()
    make = lambda: SMTP(Keep(), loop=loop, **options)
    secure = context if mode == "implicit" else None
    server = await loop.create_server(make, "127.0.0.1", int(port), ssl=secure)
    await server.serve_forever()


asyncio.run(main())
