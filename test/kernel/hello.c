// SPDX-License-Identifier: MIT
/* guest: cpus=1,2 debug timeout=10 */
/* The smallest test: the guest runs C programs and their results are counted. */
#include <stdio.h>
#include <unistd.h>

int main(void)
{
	printf("1..2\n");
	printf("ok 1 - a program runs\n");
	printf("%s 2 - as process %d\n", getpid() > 1 ? "ok" : "not ok", getpid());
	return 0;
}
