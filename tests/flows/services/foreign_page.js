// What a page tries at servers of other sites. Each attempt waits for its answer.
globalThis.attempts = {
    // The status of an answer that the page may read; null if the browser keeps it from the page.
    async read(url) {
        try { return (await fetch(url)).status } catch { return null }
    },

    async fetchAsJson(request) {
        await send(request, {}, "application/json")
    },

    // Without a preflight: the server sees the request, the page no answer.
    async fetchAsText(request) {
        await send(request, {mode: "no-cors", method: "POST"}, "text/plain")
    },

    async submitForm(request) {
        const form = document.createElement("form")
        Object.assign(form, {action: request.url, method: "POST", enctype: "text/plain", target: "answer"})
        if (request.json) {
            // An equals sign stands between name and value, and a line's end after it: both within the JSON.
            const input = document.createElement("input")
            input.name = JSON.stringify(request.json).slice(0, -1) + ', "tail": "'
            input.value = '"}'
            form.append(input)
        }
        const frame = document.createElement("iframe")
        frame.name = "answer"
        document.documentElement.append(frame, form)
        const answered = new Promise(resolve => { frame.onload = resolve })
        form.submit()
        await Promise.race([answered, new Promise(resolve => setTimeout(resolve, 5000))])
        frame.remove()
        form.remove()
    },

    // Whether a WebSocket opens.
    open(url) {
        return new Promise(resolve => {
            const socket = new WebSocket(url)
            socket.onopen = () => { resolve(true); socket.close() }
            socket.onerror = () => resolve(false)
        })
    },
}

async function send(request, settings, type) {
    let body = request.json && JSON.stringify(request.json)
    if (request.file) {
        body = new FormData()
        body.append("files", new Blob(["WEBVTT\n"]), request.file)
    }
    const headers = typeof body === "string" ? {"Content-Type": type} : {}
    try { await fetch(request.url, {method: request.method ?? "POST", body, headers, ...settings}) } catch {}
}
