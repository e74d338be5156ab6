/** A sidecar: answers the calls of the application. Start it with: rpal run -- node sidecar.js */
import { serve } from 'rpal';

const server = await serve('/tmp/rpal-example.sock', {
  greet: (payload) => Buffer.from(`Hello, ${Buffer.from(payload)}! I am process ${process.pid}.`),
});
console.log(`sidecar: process ${process.pid} serves over ${server.transport}`);
