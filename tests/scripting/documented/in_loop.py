"""Waits in the event loop, for time, another program, another server: nobody else does."""

import asyncio


class Waiting:
    async def running(self):
        print("runs, asynchronously")

    async def request(self, flow):
        if flow.request.path == "/slow":
            await asyncio.sleep(1.0)
        if flow.request.path == "/program":
            program = await asyncio.create_subprocess_exec("echo", "from outside", stdout=asyncio.subprocess.PIPE)
            output, _ = await program.communicate()
            flow.request.headers["X-Program"] = output.decode().strip()
        if flow.request.path == "/server":
            reader, writer = await asyncio.open_connection("127.0.0.1", int(flow.request.headers["X-Port"]))
            writer.write(b"GET /from-script HTTP/1.0\r\n\r\n")
            flow.request.headers["X-Server"] = (await reader.readline()).decode().strip()
            writer.close()

    async def response(self, flow):
        await asyncio.sleep(0)
        flow.response.headers["X-Waited"] = "yes"


addons = [Waiting()]
