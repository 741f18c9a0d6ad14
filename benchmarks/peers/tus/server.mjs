// The server of the tus documentation, on loopback: node server.mjs DIRECTORY PORT
import { randomUUID } from 'node:crypto'
import { FileStore } from '@tus/file-store'
import { Server } from '@tus/server'

const [directory, port] = process.argv.slice(2)

new Server({
  path: '/files',
  datastore: new FileStore({ directory }),
  // Lets the harness know which file to sync.
  namingFunction: (_request, metadata) => metadata?.filename ?? randomUUID(),
}).listen({ host: '127.0.0.1', port: Number(port) })
