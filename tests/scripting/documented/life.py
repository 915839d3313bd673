"""Says when each hook is called, from load to done."""


class Life:
    def load(self, loader):
        print("hook load")

    def configure(self, updated):
        print("hook configure")

    def running(self):
        print("hook running")

    def requestheaders(self, flow):
        print("hook requestheaders", flow.request.raw_content)

    def request(self, flow):
        print("hook request", flow.request.raw_content)

    def responseheaders(self, flow):
        print("hook responseheaders", flow.response.status_code, flow.response.raw_content)

    def response(self, flow):
        print("hook response", flow.response.raw_content)

    def error(self, flow):
        print("hook error")

    def done(self):
        print("hook done")


addons = [Life()]
