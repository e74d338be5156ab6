/** Serves, closes the server, and has then nothing to do. Argument: the address. */
import { serve } from 'rpal';

const server = await serve(process.argv[2], {});
await server.close();
console.log(`closed ${server.transport}`);
